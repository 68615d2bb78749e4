"""Which dataset each sample of a run is of, and which number it has among that dataset's.

Both mixtures are pure functions of (shares, seed, position) with random access. They make the sequence a
block of about 65,536 samples at a time, and differ in how often each dataset comes in a block:

* `Multinomial`, the paper's ("first drawing datasets uniformly at random", section 4.1): each sample's
  dataset is drawn for itself. A block is one multinomial draw of counts, put in a random order, which has the
  same distribution.
* `Stratified`: every batch of B samples has ⌊B·share⌋ or ⌈B·share⌉ of each dataset. Plain largest remainders
  would give the same datasets one more in every batch; here the remainders are dealt out by systematic
  rounding, whose offset runs through van der Corput's sequence. Over any n batches a dataset's count then
  differs from n·B·share by at most log₂ n + 2, and the counts before any batch have a closed form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.sampling.streams import random_stream

BLOCK = 1 << 16
"""Samples whose datasets are drawn together, about."""

DEALT_STEPS = 4
"""Steps whose draws of a dataset are numbered together, see `Mixture`. More would suit ranks with fewer than
16 samples of a batch, fewer those with more than 64."""

_COUNTS, _ORDER = 1, 2
_BITS = 40
"""Fractional bits of the fixed-point numbers of `Stratified`: rounding errors would make counts drift."""


class Mixture(ABC):
    """An infinite sequence of datasets, in batches.

    A dataset's samples are numbered place by place of the batch, and at each over `DEALT_STEPS` batches. So
    the numbers of a rank, which has some neighbouring places of every batch, follow each other, and it reads
    few row groups however many ranks there are.

    Args:
        shares: of each dataset, any non-negative numbers with a positive sum.
        seed: decides the order.
        batch_size: of the global batch.
    """

    def __init__(self, shares: Sequence[float] | NDArray[np.float64], seed: int, batch_size: int) -> None:
        weights = np.asarray(shares, np.float64)
        self._shares = weights / weights.sum()
        self._seed = seed
        self._dealt = batch_size, DEALT_STEPS
        self._batches = DEALT_STEPS * max(1, BLOCK // (batch_size * DEALT_STEPS))
        self._block_samples = self._batches * batch_size
        self._block = lru_cache(maxsize=2)(self._drawn_block)

    def draws(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Dataset of each sample, and its number among the samples of that dataset, from 0.

        Args:
            positions: (n,) ascending.

        Returns:
            two arrays of shape (n,).
        """
        datasets, ordinals = np.empty_like(positions), np.empty_like(positions)
        blocks = positions // self._block_samples
        for block in np.unique(blocks):
            first, last = np.searchsorted(blocks, [block, block + 1])
            inside = positions[first:last] - block * self._block_samples
            order, ordinal = self._block(int(block))
            datasets[first:last], ordinals[first:last] = order[inside], ordinal[inside]
        return datasets, ordinals

    def _drawn_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = self._order(block)
        places, steps = self._dealt
        dealt = np.arange(len(order)).reshape(-1, steps, places).swapaxes(1, 2).ravel()
        ordinal = np.empty_like(order)
        for dataset, before in enumerate(self._counts_before(block)):
            chosen = dealt[order[dealt] == dataset]
            ordinal[chosen] = before + np.arange(len(chosen))
        return order, ordinal

    @abstractmethod
    def _order(self, block: int) -> NDArray[np.int64]:
        """The datasets of a block's samples."""

    @abstractmethod
    def _counts_before(self, block: int) -> NDArray[np.int64]:
        """How often each dataset comes in all blocks before this one."""


class Multinomial(Mixture):
    """Every sample's dataset is drawn independently."""

    def __init__(self, shares: Sequence[float] | NDArray[np.float64], seed: int, batch_size: int) -> None:
        super().__init__(shares, seed, batch_size)
        self._reached = (0, np.zeros(len(shares), np.int64))

    def _order(self, block: int) -> NDArray[np.int64]:
        order = np.repeat(np.arange(len(self._shares)), self._counts(block))
        return random_stream(self._seed, _ORDER, block).permutation(order)

    def _counts(self, block: int) -> NDArray[np.int64]:
        return random_stream(self._seed, _COUNTS, block).multinomial(self._block_samples, self._shares)

    def _counts_before(self, block: int) -> NDArray[np.int64]:
        # Some 20 microseconds a block that is passed over, and nothing is kept of it.
        reached, counts = self._reached if self._reached[0] <= block else (0, np.zeros_like(self._reached[1]))
        for earlier in range(reached, block):
            counts = counts + self._counts(earlier)
        self._reached = (block, counts)
        return counts


class Stratified(Mixture):
    """Every batch has its datasets' shares as nearly as whole samples allow."""

    def __init__(self, shares: Sequence[float] | NDArray[np.float64], seed: int, batch_size: int) -> None:
        super().__init__(shares, seed, batch_size)
        ends = batch_size * np.cumsum(self._shares)
        ends[-1] = batch_size
        self._ends = np.rint(ends * (1 << _BITS)).astype(np.int64)

    def _order(self, block: int) -> NDArray[np.int64]:
        batches = np.arange(block * self._batches, (block + 1) * self._batches)
        counts = np.diff(self._rounded(batches), prepend=0)
        order = np.repeat(np.tile(np.arange(counts.shape[1]), len(batches)), counts.ravel())
        rows = order.reshape(len(batches), -1)
        return random_stream(self._seed, _ORDER, block).permuted(rows, axis=1).ravel()

    def _rounded(self, batches: NDArray[np.int64]) -> NDArray[np.int64]:
        """In each batch, the samples of each dataset and those before it together: (batches, datasets)."""
        return (self._ends + reversed_bits(batches)[:, None]) >> _BITS

    def _counts_before(self, block: int) -> NDArray[np.int64]:
        """Hermite's identity sums the floors of 2^m consecutive batches: ⌊x⌋ + … + ⌊x + (n-1)/n⌋ = ⌊n·x⌋."""
        batch = block * self._batches
        total, done = np.zeros_like(self._ends), 0
        for power in reversed(range(batch.bit_length())):
            if batch >> power & 1:
                offset = reversed_bits(np.asarray([done]))
                total += (self._ends + offset) >> (_BITS - power)
                done += 1 << power
        return np.diff(total, prepend=0)


def reversed_bits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Van der Corput's sequence in base 2, as fixed-point numbers: the lowest 40 bits in reverse order."""
    result = np.zeros_like(numbers)
    for bit in range(_BITS):
        result |= ((numbers >> bit) & 1) << (_BITS - 1 - bit)
    return result
