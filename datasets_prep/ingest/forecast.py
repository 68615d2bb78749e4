"""Dry run of an ingest: bytes to write, time to take, and shards that are finished already.

A few samples are read and normalised as by the ingest, and the results are extrapolated to the others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.ingest.row import make_row
from datasets_prep.plan.shards import DatasetPlan, IngestPlan, open_source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import DigestingFolder, Folder

TRIED_SAMPLES = 6


@dataclass(frozen=True, slots=True)
class Forecast:
    """The work that an ingest has to do.

    Attributes:
        finished_shards: shards that exist already and would be kept.
        missing_samples: samples of the other shards.
        tried, usable: samples that were read for this forecast, and those of them that were usable.
        bytes: size of the missing shards; None if no tried sample was usable.
        core_seconds: time that one core needs for them.
    """

    finished_shards: int
    missing_samples: int
    tried: int
    usable: int
    bytes: int | None
    core_seconds: float


def forecast(plan: IngestPlan, out: str) -> Forecast:
    """`extrapolated` from some samples of a `plan` of raw data to the missing shards below `out`."""
    source, root = open_source(plan.source, plan.raw, plan.settings), DigestingFolder(plan.raw)
    return extrapolated(plan, out, lambda sample, split: make_row(source, root, sample, split, plan.settings))


def extrapolated(plan: DatasetPlan, out: str, row_of: Callable[[Sample, str], dict[str, Any]]) -> Forecast:
    """Extrapolate from some samples of `plan` to the missing shards below `out`; writes nothing.

    `row_of` makes the row of a sample in a split, as the job would; it may raise BadSample.
    """
    present = set((Folder(out) / plan.dataset / plan.version).children())
    missing = [shard for shard in plan.shards if shard.name not in present]
    count = sum(shard.count for shard in missing)
    chosen = _some_samples(plan)
    sizes: list[int] = []
    start = time.perf_counter()
    for split, sample in chosen:
        try:
            row = row_of(sample, split)
        except BadSample:
            continue
        sizes.append(sum(len(value) for value in row.values() if isinstance(value, bytes)))
    seconds = time.perf_counter() - start
    return Forecast(
        finished_shards=len(plan.shards) - len(missing),
        missing_samples=count,
        tried=len(chosen),
        usable=len(sizes),
        bytes=round(float(np.mean(sizes)) * count * len(sizes) / len(chosen)) if sizes else None,
        core_seconds=seconds / len(chosen) * count,
    )


def _some_samples(plan: DatasetPlan) -> list[tuple[str, Sample]]:
    """Samples evenly spaced over the plan, each with its split."""
    positions = np.unique(np.linspace(0, plan.samples - 1, TRIED_SAMPLES).astype(int)).tolist()
    chosen, first = [], 0
    for shard in plan.shards:
        wanted = [position - first for position in positions if first <= position < first + shard.count]
        if wanted:
            samples = shard.samples
            chosen += [(shard.split, samples[position]) for position in wanted]
        first += shard.count
    return chosen
