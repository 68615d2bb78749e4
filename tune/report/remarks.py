"""The sentences of a sweep's report: progress, agreement with the paper, significance, settings."""

from __future__ import annotations

import math

from pipelines.config import TrainConfig
from tune import records
from tune.report.comparison import TableResults, against_the_best, agreement
from tune.report.results import SweepResults
from tune.report.significance import note

_COMPARED_SETTINGS = ("steps", "batch_size", "crop", "model.pretrained")
_SHOWN_PACKAGES = ("torch", "timm", "ray", "mlflow")


def progress(sweep: SweepResults) -> tuple[int, int, float]:
    """Number of finished trainings of a `sweep`, of all its trainings, and their hours together."""
    trainings = sweep.trainings()
    done = sum(trial.counts for trial in trainings)
    hours = sum(trial.metrics.get(records.TRAIN_HOURS, 0.0) for trial in trainings)
    return done, len(trainings), hours


def finding(sweep: SweepResults) -> str:
    """A `sweep` in a sentence or two."""
    done, planned, _ = progress(sweep)
    names = ", ".join(dict.fromkeys(dataset.name for dataset in sweep.data())) or "no data yet"
    missing = f"{done} of {planned} trainings are finished; what is missing is marked"
    state = missing if done < planned else f"All {done} trainings are finished"
    return f"{state}. Trained and validated on {names}."


def remarks(results: TableResults) -> list[str]:
    """Rank agreement and significance over seeds of a table's `results`, and notes on the paper's."""
    found = []
    if results.table.trained and results.table.name != "resolution":
        best = against_the_best(results)
        found = [_agreement(results), *([note(*best)] if best else [])]
        if any(row.row.paper for row in results.rows) and not results.same_datasets:
            found.append(
                "Our mean is over other datasets than the paper's, so there is no difference of means; "
                "their order can be compared."
            )
    return [*found, *results.table.notes]


def settings(sweep: SweepResults) -> list[str]:
    """Versions with which a `sweep` was run, and how its training differs from the paper's."""
    commit = sweep.tags.get("git_commit", "unknown")
    known = {name: sweep.tags.get(f"version.{name}") for name in _SHOWN_PACKAGES}
    versions = ", ".join(f"{name} {version}" for name, version in known.items() if version)
    lines = [f"Commit {commit}{f'; {versions}' if versions else ''}."]
    differences = [text for key in _COMPARED_SETTINGS if (text := _difference(sweep, key))]
    if differences:
        lines.append(
            f"Not the paper's training: {'; '.join(differences)}. Compare orders and signs, not figures."
        )
    return lines


def _difference(sweep: SweepResults, key: str) -> str:
    ours = sorted({trial.parameters[key] for trial in sweep.trials if key in trial.parameters})
    value = TrainConfig().model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return "" if ours in ([], [str(value)]) else f"{key} {' or '.join(ours)} instead of {value}"


def _agreement(results: TableResults) -> str:
    found = agreement(results)
    if found is None or math.isnan(found.tau):
        return "Ranks are not compared: fewer than two rows have figures of ours and of the paper's."
    return (
        f"Ranks by mean AbsRel: Kendall's τ = {found.tau:.2f}; of {found.pairs} pairs of rows that the paper "
        f"orders, {found.alike} are in the same order here."
    )
