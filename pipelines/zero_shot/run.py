"""`dpt evaluate --on …`: a model on the evaluation sets of Table 1, each image once.

A set's figure is the mean over its images, in the metric that the paper reports on it. Images whose valid
pixels all lie beyond the cap (19 of Sintel) can have none: they are counted and named. Images that cannot be
read, and predictions that are not finite, end the evaluation with an error rather than a mean over fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import UserError
from datasets_prep.storage.retries import StorageFailed
from dpt.weights.folder import CONFIG, WEIGHTS
from pipelines.cluster.session import connect, cpus_per_worker, require_room, wants_gpu
from pipelines.config import ZeroShotConfig
from pipelines.evaluation.paper_tables import TABLE_1, Column
from pipelines.tracking.model_reference import BadModel, as_folder
from pipelines.zero_shot.protocol import METRICS, InputSize
from pipelines.zero_shot.sets import FoundSet
from pipelines.zero_shot.stream import Work, Workers, evaluate_stream

HEADLINE: dict[str, Column] = {column.dataset: column for column in TABLE_1.columns}
"""Set → its column of Table 1."""

_SHOWN = 3


class BadPrediction(UserError):
    """A prediction that is not finite; the message names image and set."""


class UnreadableImages(UserError):
    """Images of a set that cannot be used; the message counts them and names some, with reasons."""


@dataclass(frozen=True, slots=True)
class SetResult:
    """What came of one set.

    Attributes:
        name: of the set.
        table: of `RESULT_SCHEMA` without `picture`, a row an image, in the set's order.
        expected: how many images the set has, by its authors.
    """

    name: str
    table: pa.Table
    expected: int

    @property
    def values(self) -> NDArray[np.float64]:
        """The headline metric of the images that have it, in the set's order."""
        return self.of(HEADLINE[self.name].metric)

    def of(self, metric: str) -> NDArray[np.float64]:
        """Any metric of the images that have pixels to count."""
        counted = self.table.filter(pc.greater(self.table.column("pixels"), 0))
        return np.asarray(counted.column(metric).to_numpy(), np.float64)

    @property
    def mean(self) -> float:
        """The set's figure, as a share (not in percent)."""
        return float(np.mean(self.values)) if len(self.values) else float("nan")

    @property
    def beyond_cap(self) -> list[str]:
        """Ids of the images without a valid pixel nearer than the cap."""
        return _ids(self.table.filter(pc.equal(self.table.column("pixels"), 0)))

    @property
    def unreadable(self) -> list[str]:
        """Ids and reasons of the images that could not be used."""
        rows = self.table.filter(pc.is_valid(self.table.column("problem")))
        return [f"{row['sample_id']}: {row['problem']}" for row in rows.to_pylist()]

    def means(self) -> dict[str, float]:
        """Metric → mean over images, those that apply to the set."""
        means = {metric: self.of(metric) for metric in METRICS}
        return {metric: float(np.mean(v)) for metric, v in means.items() if len(v) and not np.isnan(v).all()}


def require_depth_model(network: dpt.DPT) -> None:
    """Refuse a model of another task.

    Raises:
        BadModel: naming the task.
    """
    if network.config.task != "depth":
        raise BadModel(f"this is a {network.config.task} model; zero-shot evaluation takes models of depth")


def evaluate_zero_shot(
    settings: ZeroShotConfig,
    network: dpt.DPT,
    found: Sequence[FoundSet],
    allow_missing: bool = False,
    on_progress: Callable[[int], None] = lambda images: None,
) -> list[SetResult]:
    """Evaluate a model on Ray.

    Args:
        allow_missing: leave out images that cannot be used.
        on_progress: called with numbers of images that are done.

    Returns:
        a result a set, in the order of `found`.

    Raises:
        BadModel: if the model predicts no depth.
        BadPrediction: as soon as a prediction is not finite.
        UnreadableImages: if images cannot be used and that is not allowed, or none of a set can.
        StorageFailed: if storage fails.
    """
    require_depth_model(network)
    work = [_work(settings, network, entry, range(len(entry.samples))) for entry in found]
    tables = []
    for table in _stream(settings, network, work):
        _check(table)
        tables.append(table.drop_columns(["picture"]))
        on_progress(table.num_rows)
    whole = pa.concat_tables(tables)
    results = [_result(entry, whole) for entry in found]
    _require_readable(results, allow_missing)
    return results


def draw_worst(
    settings: ZeroShotConfig, network: dpt.DPT, found: Sequence[FoundSet], results: Sequence[SetResult]
) -> dict[str, list[tuple[str, bytes]]]:
    """The worst images of each set, evaluated again and drawn.

    Returns:
        set → (title, PNG of `zero_shot_picture`) of at most `settings.worst` images, the worst first.
    """
    chosen = {result.name: _worst(result, settings.worst) for result in results}
    work = [_work(settings, network, entry, [p for p, _ in chosen[entry.name]]) for entry in found]
    pictures: dict[tuple[str, int], bytes] = {}
    for table in _stream(settings, network, [part for part in work if part.samples], pictures=True):
        _check(table)
        for row in table.select(["dataset", "position", "picture"]).to_pylist():
            pictures[row["dataset"], row["position"]] = row["picture"]
    return {
        name: [(title, pictures[name, position]) for position, title in entries]
        for name, entries in chosen.items()
    }


def _stream(
    settings: ZeroShotConfig, network: dpt.DPT, work: Sequence[Work], pictures: bool = False
) -> Iterator[pa.Table]:
    if not work:
        return
    connect()
    use_gpu = wants_gpu(settings.device)
    threads = cpus_per_worker(settings.workers)
    require_room(settings.workers, threads, use_gpu)
    workers = Workers(
        settings.workers, threads, use_gpu, settings.batch_size, getattr(torch, settings.precision)
    )
    with as_folder(network) as folder:
        files = {name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)}
    yield from evaluate_stream(work, files, workers, pictures)


def _work(settings: ZeroShotConfig, network: dpt.DPT, entry: FoundSet, positions: Sequence[int]) -> Work:
    description = entry.description
    size = InputSize(
        settings.side or network.config.image_size, settings.rule or description.rule, network.size_divisor
    )
    samples = [(position, entry.samples[position]) for position in positions]
    return Work(entry.name, entry.source, entry.raw, samples, description.cap, description.border, size)


def _check(table: pa.Table) -> None:
    """Stop at what no later image can mend."""
    failures = table.column("failure").drop_null().to_pylist()
    if failures:
        raise StorageFailed(failures[0])
    bad = table.filter(pc.fill_null(pc.invert(table.column("finite")), fill_value=False))
    if bad.num_rows:
        row = bad.slice(0, 1).to_pylist()[0]
        raise BadPrediction(
            f"{row['dataset']}: the prediction of {row['sample_id']} has values that are not finite"
        )


def _result(entry: FoundSet, whole: pa.Table) -> SetResult:
    table = whole.filter(pc.equal(whole.column("dataset"), entry.name)).sort_by("position")
    positions = table.column("position").to_pylist()
    if positions != list(range(len(entry.samples))):
        raise RuntimeError(f"{entry.name}: evaluated {len(positions)} images of {len(entry.samples)}")
    if table.column("sample_id").to_pylist() != [sample.sample_id for sample in entry.samples]:
        raise RuntimeError(f"{entry.name}: results are of other images than those that were asked for")
    return SetResult(entry.name, table, entry.description.images)


def _require_readable(results: Sequence[SetResult], allow_missing: bool) -> None:
    problems = []
    for result in results:
        unreadable = result.unreadable
        if unreadable and (not allow_missing or len(unreadable) == result.table.num_rows):
            more = "; …" if len(unreadable) > _SHOWN else ""
            shown = "; ".join(unreadable[:_SHOWN])
            problems.append(
                f"{result.name}: {len(unreadable)} of {result.table.num_rows} images cannot be used: "
                f"{shown}{more}"
            )
        elif not len(result.values):
            problems.append(f"{result.name}: no image has valid ground truth nearer than the cap")
    if problems:
        offer = "" if allow_missing else "\n--allow-missing leaves them out, and says so in the table"
        raise UnreadableImages("\n".join(problems) + offer)


def _worst(result: SetResult, count: int) -> list[tuple[int, str]]:
    """Positions and titles of the images with the largest errors; of equal ones the first."""
    column = HEADLINE[result.name]
    counted = result.table.filter(pc.greater(result.table.column("pixels"), 0))
    ranked = counted.sort_by([(column.metric, "descending"), ("position", "ascending")]).slice(0, count)
    return [
        (row["position"], f"{row['sample_id']}  {column.metric} {row[column.metric]:.4f}")
        for row in ranked.select(["position", "sample_id", column.metric]).to_pylist()
    ]


def _ids(table: pa.Table) -> list[str]:
    return [str(name) for name in table.column("sample_id").to_pylist()]
