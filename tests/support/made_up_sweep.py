"""A synthetic sweep in MLflow: numbers from a seed, logged under the names of `tune.records`."""

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param

from datasets_prep.storage.sealed import SEAL, seal_of
from dpt.predict.colours import colourise
from pipelines.tracking import runs as tracking
from tune import records
from tune.ablations import PAPER, AblationTable
from tune.report.comparison import reference

DATASETS = ("blendedmvs", "hrwsi", "redweb")
SIDES = (384, 448, 512, 576, 640)
STEPS = (100, 200, 300, 400)
HOURS = 0.25


def value_of(title: str, dataset: str, seed: int) -> float:
    """The made-up AbsRel of a row: around the paper's, by a rule that tests can repeat."""
    paper = next(
        (row.paper[dataset] for table in PAPER.values() for row in table.rows
         if row.title == title and dataset in row.paper), 0.09
    )  # fmt: skip
    generator = np.random.default_rng([seed, *title.encode(), *dataset.encode()])
    return float(paper * 1.04 + generator.normal(0, 0.0006))


def make_sweep(
    name: str,
    tables: Sequence[str],
    seeds: Sequence[int],
    failed: Mapping[tuple[str, int], str] = {},
    left_out: Sequence[str] = (),
    not_started: Set[str] = frozenset(),
    with_pictures: bool = True,
    value: Callable[[str, str, int], float] = value_of,
) -> str:
    """Log a sweep; returns the parent's id.

    `failed` has the MLflow status of trials that did not finish by (row title, seed); of the rows with titles
    `left_out` nobody asked, and those `not_started` have no runs.
    """
    tracking.connect()
    client = MlflowClient()
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    common = {"git_commit": "0123456789abcdef0123456789abcdef01234567", "version.torch": "2.9.0"}
    parent = client.create_run(
        experiment, run_name=name, tags={records.JOB: records.SWEEP_JOB, records.SWEEP: name, **common}
    )
    variants: dict[str, dict[str, str]] = {}
    for table in tables:
        for row in PAPER[table].rows:
            key = "-".join(f"{k.rpartition('.')[2]}={v}" for k, v in sorted(row.changes.items()))
            if row.title not in left_out:
                variants.setdefault(key, {})[table] = row.title
    listed = [{"key": key, "rows": rows} for key, rows in variants.items()]
    shown = [_plain(PAPER[table], left_out) for table in tables]
    plan = {"tables": shown, "variants": listed, "seeds": list(seeds)}
    text = yaml.safe_dump({**plan, SEAL: seal_of(plan)})
    client.log_text(parent.info.run_id, text, records.SWEEP_FILE)
    for key, rows in variants.items():
        if not_started & set(rows.values()):
            continue
        for seed in seeds:
            of_sweep = (client, experiment, parent.info.run_id, name)
            _trial(*of_sweep, key, seed, rows, failed, with_pictures, value)
    client.set_terminated(parent.info.run_id)
    return str(parent.info.run_id)


def _plain(table: AblationTable, left_out: Sequence[str]) -> dict[str, Any]:
    """A table as `records.SWEEP_FILE` has it."""
    rows = [row for row in table.rows if row.title not in left_out]
    return {
        **{key: getattr(table, key) for key in ("name", "number", "caption", "claims", "trained")},
        "notes": list(table.notes),
        "rows": [{"title": r.title, "paper": dict(r.paper), "bold": sorted(r.bold)} for r in rows],
    }


def _trial(client, experiment, parent, sweep, variant, seed, rows, failed, with_pictures, value) -> None:
    title = next(iter(rows.values()))
    tags = {records.table_tag(table): row for table, row in rows.items()}
    tags |= {records.PARENT: parent, records.JOB: records.TRAIN_JOB, records.SWEEP: sweep}
    tags |= {records.VARIANT: variant, records.SEED: str(seed), records.LATENCY_DEVICE: "Made-up Processor"}
    run = client.create_run(experiment, run_name=records.trial_name(sweep, variant, seed), tags=tags)
    run_id = run.info.run_id
    with mlflow.start_run(run_id=run_id):
        for dataset in DATASETS:
            source = resolve_dataset_source("s3://bucket/shards")
            mlflow.log_input(MetaDataset(source, name=dataset, digest=f"{dataset[:2]}0123456789abcdef"))
    status = failed.get((title, seed), "FINISHED")
    client.log_batch(run_id, params=[Param("steps", "400"), Param("batch_size", "8")])
    client.log_batch(run_id, metrics=_metrics(title, seed, rows, value, whole=status == "FINISHED"))
    if with_pictures and status == "FINISHED":
        _pictures(client, run_id, title)
    client.set_terminated(run_id, status)


def _metrics(
    title: str, seed: int, rows: Mapping[str, str], value: Callable[[str, str, int], float], whole: bool
) -> list[Metric]:
    last = {dataset: value(title, dataset, seed) for dataset in DATASETS}
    last[records.MEAN] = sum(last.values()) / len(last)
    found = []
    for step in STEPS if whole else STEPS[:2]:
        factor = 1 + 0.8 * (1 - step / STEPS[-1])
        found += [Metric(records.abs_rel(name), v * factor, step, step) for name, v in last.items()]
        found += [Metric("loss", 0.2 * factor, step, step), Metric("images_per_second", 12.5, step, step)]
    if whole:
        end, letters = STEPS[-1], len(title)
        measured = {records.TRAIN_HOURS: HOURS, records.PARAMETERS: 100.0 + letters}
        measured[records.LATENCY] = 20.0 + letters
        found += [Metric(name, v, end, end) for name, v in measured.items()]
        for number, side in enumerate(SIDES if "resolution" in rows else ()):
            factor = 1 + 0.01 * number * letters
            at_side = {records.abs_rel_at(side, name): v * factor for name, v in last.items()}
            found += [Metric(name, v, end, end) for name, v in at_side.items()]
    return found


def _pictures(client: MlflowClient, run_id: str, title: str) -> None:
    y, x = np.mgrid[0:96, 0:128] / 96
    for number, dataset in enumerate(DATASETS):
        truth = np.hypot(y - 0.5, x - 0.3 - 0.2 * number).astype(np.float32)
        noise = np.random.default_rng(len(title)).normal(0, 0.05, truth.shape)
        image = (255 * np.stack([x / 1.4, y, 1 - y], axis=-1)).astype(np.uint8)
        for what, picture in (
            (records.IMAGE, image),
            (records.TRUTH, colourise(-truth)),
            (records.PREDICTION, colourise(cv2.GaussianBlur(-truth + noise, (0, 0), 3).astype(np.float32))),
        ):
            client.log_image(run_id, picture, artifact_file=records.picture_path(dataset, 0, what))


def reference_means(table: str) -> dict[str, float | None]:
    """Row → the mean that ours is compared with."""
    return {row.title: reference(row, records.MEAN) for row in PAPER[table].rows}


def folder_of(uri: str) -> Path:
    """The folder of an SQLite database."""
    return Path(uri.removeprefix("sqlite:///")).parent
