"""The sample plan: which sample is the n-th of a training run.

The paper makes a mini-batch by drawing datasets uniformly at random and then a sample of each (section 4.1).
Here that is a pure function of (sizes, weights, seed, n): nothing about it depends on the number of workers,
and resuming at step s means starting the plan at sample s × batch.

* Which dataset: independent draws by weight. To know how often each dataset was drawn before n without
  drawing n times, the draws are made a block of 65,536 at a time: first how many of the block go to each
  dataset (one multinomial draw), then in which order (a permutation). That is the same distribution.
* Which row: the next of the dataset's own pass. Each pass is a new permutation of the dataset's row groups,
  and a rotation of the rows inside each, so that consecutive draws of a dataset lie in one row group and
  eight samples cost one read. Rows are as good as independent of their row group: ingest shuffled the whole
  dataset before cutting it.

The random streams are NumPy's Philox keyed by (seed, purpose, position): any position is reached at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16
"""Samples whose datasets are drawn together."""

_COUNTS, _ORDER, _PASS = 1, 2, 3
_AUGMENT = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Draws:
    """Consecutive samples of a plan, each array of shape (n,).

    Attributes:
        dataset: int64, index of the dataset.
        row_group: int64, index of the row group in its dataset (over all shards, in order).
        row: int64, index of the row in its row group.
    """

    dataset: NDArray[np.int64]
    row_group: NDArray[np.int64]
    row: NDArray[np.int64]


class SamplePlan:
    """The infinite sequence of samples of a run.

    Args:
        row_groups: for each dataset, the number of rows of each of its row groups.
        weights: share of each dataset (any positive sum); None for all alike.
        seed: decides everything.

    Raises:
        ValueError: if a dataset with a positive weight has no rows.
    """

    def __init__(
        self, row_groups: Sequence[Sequence[int]], seed: int, weights: Sequence[float] | None = None
    ) -> None:
        self._rows = [np.asarray(rows, np.int64) for rows in row_groups]
        share = np.ones(len(self._rows)) if weights is None else np.asarray(weights, np.float64)
        self._share = share / share.sum()
        for index, rows in enumerate(self._rows):
            if self._share[index] > 0 and rows.sum() == 0:
                raise ValueError(f"dataset {index} has no rows to draw")
        self._seed = seed
        self._before = [np.zeros(len(self._rows), np.int64)]
        self._block = lru_cache(maxsize=2)(self._drawn_block)
        self._pass = lru_cache(maxsize=4 * len(self._rows))(self._shuffled_pass)

    def draws(self, start: int, stop: int) -> Draws:
        """Samples `start` to `stop` (exclusive) of the run."""
        datasets, ordinals = self._datasets(start, stop)
        row_group, row = np.empty_like(datasets), np.empty_like(datasets)
        for index in np.unique(datasets):
            chosen = datasets == index
            row_group[chosen], row[chosen] = self._rows_of(int(index), ordinals[chosen])
        return Draws(datasets, row_group, row)

    def _datasets(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Dataset of each sample, and how many samples of that dataset came before it in the run."""
        datasets, ordinals = [], []
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            order, ordinal = self._block(block)
            inside = slice(max(0, start - block * BLOCK), min(BLOCK, stop - block * BLOCK))
            datasets.append(order[inside])
            ordinals.append(ordinal[inside])
        if not datasets:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate(datasets), np.concatenate(ordinals)

    def _drawn_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.repeat(np.arange(len(self._rows)), self._block_counts(block))
        order = self._generator(_ORDER, block).permutation(order)
        ordinal = np.empty(BLOCK, np.int64)
        for index, before in enumerate(self._counts_before(block)):
            chosen = order == index
            ordinal[chosen] = before + np.arange(np.count_nonzero(chosen))
        return order, ordinal

    def _block_counts(self, block: int) -> NDArray[np.int64]:
        return self._generator(_COUNTS, block).multinomial(BLOCK, self._share)

    def _counts_before(self, block: int) -> NDArray[np.int64]:
        while len(self._before) <= block:
            self._before.append(self._before[-1] + self._block_counts(len(self._before) - 1))
        return self._before[block]

    def _rows_of(
        self, dataset: int, ordinals: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row group and row of the given draws of one dataset (ordinals ascending)."""
        size = int(self._rows[dataset].sum())
        groups, rows = np.empty_like(ordinals), np.empty_like(ordinals)
        for number in np.unique(ordinals // size):
            chosen = ordinals // size == number
            positions = ordinals[chosen] - number * size
            order, ends = self._pass(dataset, int(number))
            place = np.searchsorted(ends, positions, side="right")
            groups[chosen] = order[place]
            within = positions - (ends[place] - self._rows[dataset][order[place]])
            rows[chosen] = self._rows_within(dataset, int(number), order[place], within)
        return groups, rows

    def _shuffled_pass(self, dataset: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Order of the row groups in one pass, and the cumulative number of rows after each."""
        order = self._generator(_PASS, dataset, number).permutation(len(self._rows[dataset]))
        return order, np.cumsum(self._rows[dataset][order])

    def _rows_within(
        self, dataset: int, number: int, groups: NDArray[np.int64], within: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Rotate the rows of a row group by an amount that changes with the pass."""
        turn = _hash64(
            self._seed, np.asarray(groups, np.uint64) + np.uint64((number << 40) + (dataset << 32))
        )
        sizes = self._rows[dataset][groups]
        return (within + (turn >> np.uint64(1)).astype(np.int64)) % sizes

    def _generator(self, *counter: int) -> np.random.Generator:
        """The random stream of one purpose and position: Philox keyed by the seed, counting from there."""
        words = [*counter, 0, 0, 0][:3]
        return np.random.Generator(np.random.Philox(key=self._seed, counter=[0, *words]))


def augmentation_draws(seed: int, start: int, stop: int) -> NDArray[np.float64]:
    """The random numbers that decide how samples `start` to `stop` are augmented.

    Returns:
        (n, 3) float64 in [0, 1): vertical and horizontal crop position, and flip.
    """
    bits = _hash64(seed, np.arange(3 * start, 3 * stop, dtype=np.uint64).reshape(-1, 3))
    return (bits >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _hash64(seed: int, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood, 2014) of seed and value: 64 well-mixed bits each."""
    with np.errstate(over="ignore"):
        mixed = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + (values + np.uint64(1)) * _AUGMENT
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)
