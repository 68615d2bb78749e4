"""What a sweep leaves in MLflow: the names of its tags, parameters, metrics and artifacts.

A sweep is a parent run; each of its trials, a variant with a seed, is a child run, which MLflow finds by
`mlflow.parentRunId`. Whoever reports on a sweep needs these names, an MLflow server, and nothing else.

Parent run: named as the sweep, with the tags JOB=`SWEEP_JOB` and SWEEP, and the artifact `SWEEP_FILE`:
tables, variants, seeds, data and training config, as they were resolved.

Child run: named by `trial_name`, with the tags JOB=`TRAIN_JOB`, SWEEP, VARIANT, SEED, and `table_tag(table)`
= row title for each table that the variant has a row in. Its parameters are the resolved training config. Its
metrics are those of `dpt train` and, once trained, those below.
"""

from __future__ import annotations

PARENT = "mlflow.parentRunId"
JOB, SWEEP, VARIANT, SEED = "job", "sweep", "variant", "seed"
SWEEP_JOB, TRAIN_JOB = "tune", "train"
SWEEP_FILE = "sweep.yaml"
"""Artifact of the parent run."""

PLAN_DIGEST = "plan_digest"
"""Tag of the parent run: two sweeps with the same digest are the same trials on the same data."""

STOPPED_EARLY = "stopped_early"
"""Tag of a child run that the scheduler ended before its last step: the step it had reached."""

LATENCY_DEVICE = "latency_device"
"""Tag of a child run: the processor on which `LATENCY` was measured."""

TABLES = ("skip", "readout", "backbone", "resolution", "speed")
"""The paper's: Tables 6, 7 and 8, Figure 4, Table 9. A user's own ablation has another name."""

MEAN = "mean"
"""Stands for a dataset's name where a metric is the mean over datasets."""

PARAMETERS = "parameters_millions"
LATENCY = "latency_ms"
TRAIN_HOURS = "train_hours"
"""Metrics of a child run, of Table 9 the first two; hours are those spent in training steps."""

PICTURES = "qualitative"
"""Artifact folder of a child run: pictures of the same few validation images in every child."""

IMAGE, TRUTH, PREDICTION = "image", "truth", "prediction"
"""What there is a picture of."""

_TABLE_PREFIX = "ablation."


def trial_name(sweep: str, variant: str, seed: int) -> str:
    """Name of a child run."""
    return f"{sweep}/{variant}/s{seed}"


def table_tag(table: str) -> str:
    """Tag that holds the title of the variant's row in a table."""
    return f"{_TABLE_PREFIX}{table}"


def table_of_tag(tag: str) -> str | None:
    """The table that a tag is of; None for other tags."""
    return tag.removeprefix(_TABLE_PREFIX) if tag.startswith(_TABLE_PREFIX) else None


def abs_rel(dataset: str) -> str:
    """Metric: AbsRel of a dataset at the training resolution, or of `MEAN`."""
    return f"abs_rel/{dataset}"


def abs_rel_at(side: int, dataset: str) -> str:
    """Metric of Figure 4: AbsRel with images resized to `side` pixels, at least the training crop's side."""
    return f"resolution_{side}/abs_rel/{dataset}"


def picture_path(dataset: str, number: int, what: str) -> str:
    """Artifact path of a PNG: of a dataset's validation image number 0, 1, … the `IMAGE`, `TRUTH`, …"""
    return f"{PICTURES}/{dataset}_{number}_{what}.png"
