"""A sweep in MLflow: the names of its tags, parameters, metrics and artifacts, and its runs found by them.

A sweep is a parent run; each of its trials, a variant with a seed, is a child run, which MLflow finds by
`mlflow.parentRunId`. A report on a sweep needs these names, an MLflow server, and nothing else.

Parent run: named as the sweep, with the tags JOB=`SWEEP_JOB` and SWEEP, and the artifact `SWEEP_FILE`: the
resolved tables, variants, seeds, data and training config.

Child run: named by `trial_name`, with the tags JOB=`TRAIN_JOB`, SWEEP, VARIANT, SEED, and `table_tag(table)`
= row title for each table in which the variant has a row. Its parameters are the resolved training config.
Its metrics are those of `dpt train` and, once trained, those below.
"""

from __future__ import annotations

from mlflow.entities import Run

from pipelines.tracking import metric_keys
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_keys import MEAN_MAP, RELATIVE, MetricKey

PARENT = "mlflow.parentRunId"
JOB, SWEEP, VARIANT, SEED = "job", "sweep", "variant", "seed"
SWEEP_JOB, TRAIN_JOB = "tune", "train"
IS_SWEEP = f"tags.{JOB} = '{SWEEP_JOB}'"
"""MLflow filter: the parent runs of all sweeps."""

SWEEP_FILE = "sweep.yaml"
"""Artifact of the parent run."""

PLAN_DIGEST = "plan_digest"
"""Tag of the parent run: two sweeps with the same digest are the same trials on the same data."""

STOPPED_EARLY = "stopped_early"
"""Tag of a child run that the scheduler ended before its last step: the step it had reached."""

LATENCY_DEVICE = "latency_device"
"""Tag of a child run: the processor on which `LATENCY` was measured."""

MEAN = metric_keys.MEAN
"""In place of a dataset's name: the mean over datasets."""

TABLES = ("skip", "readout", "backbone", "resolution", "speed")
"""The paper's Tables 6, 7 and 8, Figure 4, Table 9. A user's own ablation has another name."""

PARAMETERS = "parameters_millions"
LATENCY = "latency_ms"
TRAIN_HOURS = "train_hours"
"""Metrics of a child run, the first two those of Table 9; hours are those spent in training steps."""

PICTURES = "qualitative"
"""Artifact folder of a child run: pictures of the same few validation images in every child."""

IMAGE, TRUTH, PREDICTION = "image", "truth", "prediction"
"""Kinds of pictures."""

_TABLE_PREFIX = "ablation."


def trial_name(sweep: str, variant: str, seed: int) -> str:
    """Name of the child run of a `sweep` with that `variant` and `seed`."""
    return f"{sweep}/{variant}/s{seed}"


def table_tag(table: str) -> str:
    """Tag whose value is the title of the variant's row in a `table`."""
    return f"{_TABLE_PREFIX}{table}"


def table_of_tag(tag: str) -> str | None:
    """Inverse of `table_tag`: the table of a `tag`; None for other tags."""
    return tag.removeprefix(_TABLE_PREFIX) if tag.startswith(_TABLE_PREFIX) else None


def abs_rel(dataset: str) -> str:
    """Metric: AbsRel of a `dataset`, or `MEAN`, at the training resolution."""
    return str(MetricKey(RELATIVE, "abs_rel", dataset))


def mean_map(dataset: str) -> str:
    """Metric: AbsRel of the mean map of a `dataset`, or `MEAN`, on the same images."""
    return str(MetricKey(RELATIVE, MEAN_MAP, dataset))


def abs_rel_at(side: int, dataset: str) -> str:
    """Metric of Figure 4: AbsRel of a `dataset`, or `MEAN`, with images resized to `side` pixels."""
    return f"resolution_{side}/abs_rel/{dataset}"


def picture_path(dataset: str, number: int, what: str) -> str:
    """Artifact path of a PNG: picture `what` of validation image `number` (0, 1, …) of a `dataset`."""
    return f"{PICTURES}/{dataset}_{number}_{what}.png"


def find_sweep(name: str) -> Run | None:
    """The newest parent run of the sweep `name`, if there is one."""
    tracking.connect(create=False)
    found = tracking.search_runs(f"{IS_SWEEP} AND tags.{SWEEP} = {tracking.quoted(name)}")
    return found[0] if found else None


def child_runs(parent_id: str) -> list[Run]:
    """The runs of a sweep's trials, newest first; `parent_id` is the id of the sweep's run."""
    return tracking.search_runs(f"tags.`{PARENT}` = '{parent_id}'")
