"""The sample plan: the n-th sample of a training run.

The paper builds a mini-batch by drawing datasets uniformly at random and then a sample of each (section 4.1).
Here that is a pure function of (sizes, stages, seed, n): it does not depend on the number of workers, and
resuming at step s means starting the plan at sample s × batch.

* Dataset and ordinal within it: `pipelines.sampling.mixture`.
* Row: the ordinal's place in the dataset's current pass. Each pass is a new permutation of the dataset's row
  groups and a rotation of the rows of each, so that consecutive ordinals lie in one row group and eight
  samples cost one read. Rows are practically independent of their row group: ingest shuffled the whole
  dataset before cutting it.
* Stages, such as the paper's pretraining on curated datasets, follow each other; each is an independent
  sequence with its own shares and passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.sampling.mixture import Mixture, Multinomial, Stratified
from pipelines.sampling.streams import hash64, random_stream, stage_seed

Sampling = Literal["multinomial", "stratified"]

PLAN_VERSION = 2
"""Incremented when the order of samples changes: a run resumes only with the plan that it began with."""

_PASS = 3
"""Purpose of random streams; `mixture` has 1 and 2."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive steps of a run with one mixture of datasets.

    Attributes:
        steps: number of steps.
        shares: relative share of each of the run's datasets, non-negative with a positive sum; None for
            equal shares.
        sampling: the mixture, see `pipelines.sampling.mixture`.
    """

    steps: int
    shares: Sequence[float] | None = None
    sampling: Sampling = "multinomial"


@dataclass(frozen=True, slots=True)
class Draws:
    """Samples of a plan, each array of shape (n,).

    Attributes:
        dataset: int64, index of the dataset.
        row_group: int64, index of the row group in its dataset (over all shards, in order).
        row: int64, index of the row in its row group.
    """

    dataset: NDArray[np.int64]
    row_group: NDArray[np.int64]
    row: NDArray[np.int64]


class SamplePlan:
    """The sequence of samples of a run.

    Args:
        row_groups: for each dataset, the number of rows of each of its row groups.
        stages: one after the other; the last one never ends.
        batch_size: samples of the global batch.
        seed: of all random numbers.

    Raises:
        ValueError: if a dataset with a positive share has no rows.
    """

    def __init__(
        self, row_groups: Sequence[Sequence[int]], stages: Sequence[Stage], batch_size: int, seed: int
    ) -> None:
        rows = [np.asarray(groups, np.int64) for groups in row_groups]
        self._stages = [
            _Endless(rows, stage, batch_size, stage_seed(seed, number)) for number, stage in enumerate(stages)
        ]
        self._starts = batch_size * np.cumsum([0] + [stage.steps for stage in stages[:-1]], dtype=np.int64)

    def draws(self, positions: NDArray[np.int64]) -> Draws:
        """The samples at `positions` (ascending, int64) of the run."""
        inside = np.split(positions, np.searchsorted(positions, self._starts[1:]))
        stages = zip(self._stages, self._starts, inside, strict=True)
        parts = [stage.draws(part - start) for stage, start, part in stages]
        fields = ("dataset", "row_group", "row")
        return Draws(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


class _Endless:
    """The infinite sequence of samples that a stage takes the beginning of."""

    def __init__(self, rows: list[NDArray[np.int64]], stage: Stage, batch_size: int, seed: int) -> None:
        shares = np.ones(len(rows)) if stage.shares is None else stage.shares
        for index, (share, groups) in enumerate(zip(shares, rows, strict=True)):
            if share > 0 and groups.sum() == 0:
                raise ValueError(f"dataset {index} has no rows to draw")
        self._rows, self._seed = rows, seed
        kind = Stratified if stage.sampling == "stratified" else Multinomial
        self._mixture: Mixture = kind(shares, seed, batch_size)
        self._pass = lru_cache(maxsize=4 * len(rows))(self._shuffled_pass)

    def draws(self, positions: NDArray[np.int64]) -> Draws:
        """The samples at `positions` (ascending)."""
        datasets, ordinals = self._mixture.draws(positions)
        row_group, row = np.empty_like(datasets), np.empty_like(datasets)
        for index in np.unique(datasets):
            chosen = np.flatnonzero(datasets == index)
            row_group[chosen], row[chosen] = self._rows_of(int(index), ordinals[chosen])
        return Draws(datasets, row_group, row)

    def _rows_of(
        self, dataset: int, ordinals: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row group and row of the ordinals (n,) of one dataset.

        Row groups of 3, 2 and 3 rows, pass 1 in the order 2, 0, 1: it ends after 3, 6 and 8 rows. Ordinal 12
        is position 4 of pass 1 (12 = 1 · 8 + 4): the second row group of the pass, 0, and its row 4 − 3 = 1,
        which a rotation by 2 makes row (1 + 2) % 3 = 0.
        """
        passes, positions = np.divmod(ordinals, self._rows[dataset].sum())
        groups, rows = np.empty_like(ordinals), np.empty_like(ordinals)
        for number in np.unique(passes):
            inside = np.flatnonzero(passes == number)
            order, ends = self._pass(dataset, int(number))
            place = np.searchsorted(ends, positions[inside], side="right")
            group = order[place]
            sizes = self._rows[dataset][group]
            within = positions[inside] - (ends[place] - sizes)
            groups[inside], rows[inside] = group, (within + self._turns(dataset, int(number), group)) % sizes
        return groups, rows

    def _shuffled_pass(self, dataset: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Order of the row groups in one pass, and the number of rows up to the end of each."""
        order = random_stream(self._seed, _PASS, dataset, number).permutation(len(self._rows[dataset]))
        return order, np.cumsum(self._rows[dataset][order])

    def _turns(self, dataset: int, number: int, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rotation of the rows of each of the `groups` in a pass; 63 bits of a hash, to stay non-negative."""
        keys = groups.astype(np.uint64) + np.uint64((number << 40) + (dataset << 32))
        return (hash64(self._seed, keys) >> np.uint64(1)).astype(np.int64)
