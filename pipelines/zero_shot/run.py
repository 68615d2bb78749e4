"""`dpt evaluate --on …`: a model on the evaluation sets of Table 1, each image once.

A set's figure is the mean over its images, in the metric that the paper reports on it. Images whose valid
pixels all lie beyond the cap (19 of Sintel) have no metric: they are counted and named. Images that cannot be
read, and predictions that are not finite, end the evaluation with an error rather than a mean over fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import UserError
from datasets_prep.storage.retries import StorageFailed
from pipelines.config import ZeroShotConfig
from pipelines.evaluation.sets import ZeroShotSet
from pipelines.tracking.model_reference import BadModel
from pipelines.zero_shot.protocol import METRICS
from pipelines.zero_shot.sets import FoundSet
from pipelines.zero_shot.stream import Work, evaluate_stream

_SHOWN = 3


class BadPrediction(UserError):
    """A prediction that is not finite; the message names image and set."""


class UnreadableImages(UserError):
    """Images of a set that cannot be used; the message counts them and names some, with reasons."""


@dataclass(frozen=True, slots=True)
class SetResult:
    """The result of a set, by its `description`: a `table` of `RESULT_SCHEMA` without `picture`, in order."""

    description: ZeroShotSet
    table: pa.Table

    @property
    def name(self) -> str:
        """Name of the set."""
        return self.description.name

    @property
    def counted(self) -> pa.Table:
        """The rows of the images that have pixels to compare."""
        return self.table.filter(pc.greater(self.table.column("pixels"), 0))

    @property
    def values(self) -> NDArray[np.float64]:
        """The metric that Table 1 reports on the set, of the images that have it, in the set's order."""
        return np.asarray(self.counted.column(self.description.column.metric).to_numpy(), np.float64)

    @property
    def mean(self) -> float:
        """Mean of `values`, as a fraction (not in percent)."""
        return float(np.mean(self.values)) if len(self.values) else float("nan")

    @property
    def beyond_cap(self) -> list[str]:
        """Ids of the images without a valid pixel nearer than the cap."""
        beyond = self.table.filter(pc.equal(self.table.column("pixels"), 0))
        return [str(name) for name in beyond.column("sample_id").to_pylist()]

    @property
    def unreadable(self) -> list[str]:
        """Ids and reasons of the images that could not be used."""
        rows = self.table.filter(pc.is_valid(self.table.column("problem")))
        return [f"{row['sample_id']}: {row['problem']}" for row in rows.to_pylist()]

    def means(self) -> dict[str, float]:
        """Metric → mean over images, for the metrics that apply to the set."""
        columns = {metric: self.counted.column(metric).to_numpy() for metric in METRICS}
        values = {metric: np.asarray(column, np.float64) for metric, column in columns.items()}
        return {metric: float(np.mean(v)) for metric, v in values.items() if len(v) and not np.isnan(v).all()}


def require_depth_model(model: dpt.DPT) -> None:
    """Raises BadModel, naming the task, unless `model` is a depth model."""
    if model.config.task != "depth":
        raise BadModel(f"this is a {model.config.task} model; zero-shot evaluation takes models of depth")


def evaluate_zero_shot(
    settings: ZeroShotConfig,
    model: dpt.DPT,
    found: Sequence[FoundSet],
    allow_missing: bool = False,
    on_progress: Callable[[int], None] = lambda images: None,
) -> list[SetResult]:
    """Evaluate on Ray a `model` of depth or inverse depth, on any device: one result for each set `found`.

    `settings` has input size, workers, device, batch size and precision. With `allow_missing`, images that
    cannot be used are left out. `on_progress` is called with the number of images just finished.

    Raises:
        BadModel: if the model does not predict depth.
        BadPrediction: as soon as a prediction is not finite.
        UnreadableImages: if images cannot be used and that is not allowed, or no image of a set can.
        StorageFailed: if storage fails.
    """
    require_depth_model(model)
    work = [_work(settings, model, entry, range(len(entry.samples))) for entry in found]
    tables = []
    for table in evaluate_stream(settings, model, work):
        _check(table)
        tables.append(table.drop_columns(["picture"]))
        on_progress(table.num_rows)
    whole = pa.concat_tables(tables)
    results = [_result(entry, whole) for entry in found]
    _require_readable(results, allow_missing)
    return results


def draw_worst(
    settings: ZeroShotConfig, model: dpt.DPT, found: Sequence[FoundSet], results: Sequence[SetResult]
) -> dict[str, list[tuple[str, bytes]]]:
    """Evaluate the `settings.worst` images of each set with the largest errors again, and draw them.

    `settings`, `model` and `found` are as in `evaluate_zero_shot`, `results` what it returned.

    Returns:
        set → (title, PNG of `pipelines.zero_shot.pictures`) of its images, the worst first.
    """
    chosen: dict[str, dict[int, str]] = {}  # set → position → title; of equal errors the first
    for result in results:
        metric = result.description.column.metric
        ranked = result.counted.sort_by([(metric, "descending"), ("position", "ascending")])
        rows = ranked.slice(0, settings.worst).select(["position", "sample_id", metric]).to_pylist()
        titles = {row["position"]: f"{row['sample_id']}  {metric} {row[metric]:.4f}" for row in rows}
        chosen[result.name] = titles
    work = [_work(settings, model, entry, list(chosen[entry.name])) for entry in found]
    pictures: dict[tuple[str, int], bytes] = {}
    for table in evaluate_stream(settings, model, work, pictures=True):
        _check(table)
        for row in table.select(["dataset", "position", "picture"]).to_pylist():
            pictures[row["dataset"], row["position"]] = row["picture"]
    return {
        name: [(title, pictures[name, position]) for position, title in titles.items()]
        for name, titles in chosen.items()
    }


def _work(settings: ZeroShotConfig, model: dpt.DPT, entry: FoundSet, positions: Sequence[int]) -> Work:
    side, rule = settings.side or model.config.side, settings.rule or entry.description.rule
    chosen = replace(entry, samples=tuple(entry.samples[position] for position in positions))
    return Work(chosen, positions, (side, rule, model.size_divisor))


def _check(table: pa.Table) -> None:
    """Raise for failures that make the result useless, regardless of the images that follow."""
    failures = table.column("failure").drop_null().to_pylist()
    if failures:
        raise StorageFailed(failures[0])
    bad = table.filter(pc.fill_null(pc.invert(table.column("finite")), fill_value=False))
    for row in bad.slice(0, 1).to_pylist():
        raise BadPrediction(
            f"{row['dataset']}: the prediction of {row['sample_id']} has values that are not finite"
        )


def _result(entry: FoundSet, whole: pa.Table) -> SetResult:
    table = whole.filter(pc.equal(whole.column("dataset"), entry.name)).sort_by("position")
    positions = table.column("position").to_pylist()
    if positions != list(range(len(entry.samples))):
        raise RuntimeError(f"{entry.name}: evaluated {len(positions)} images of {len(entry.samples)}")
    if table.column("sample_id").to_pylist() != [sample.sample_id for sample in entry.samples]:
        raise RuntimeError(f"{entry.name}: results are of other images than those requested")
    return SetResult(entry.description, table)


def _require_readable(results: Sequence[SetResult], allow_missing: bool) -> None:
    problems = []
    for result in results:
        unreadable, rows = result.unreadable, result.table.num_rows
        if unreadable and (not allow_missing or len(unreadable) == rows):
            shown = "; ".join([*unreadable[:_SHOWN], *(["…"] if len(unreadable) > _SHOWN else [])])
            problems.append(f"{result.name}: {len(unreadable)} of {rows} images cannot be used: {shown}")
        elif not len(result.values):
            problems.append(f"{result.name}: no image has valid ground truth nearer than the cap")
    if problems:
        offer = "" if allow_missing else "\n--allow-missing leaves them out, and says so in the table"
        raise UnreadableImages("\n".join(problems) + offer)
