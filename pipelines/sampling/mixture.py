"""The dataset of each sample of a run, and the sample's ordinal within that dataset.

Both mixtures are pure functions of (shares, seed, position) with random access. They draw the sequence in
blocks of about 65,536 samples and differ in how often each dataset occurs in a block:

* `Multinomial`, the paper's ("first drawing datasets uniformly at random", section 4.1): each sample's
  dataset is drawn independently. A block is one multinomial draw of counts, put in random order, which has
  the same distribution.
* `Stratified`: every batch of B samples has ⌊B·share⌋ or ⌈B·share⌉ of each dataset. Plain largest remainders
  would favour the same datasets in every batch; here the remainders are dealt out by systematic rounding,
  whose offset follows van der Corput's sequence. Over any n batches a dataset's count then differs from
  n·B·share by at most log₂ n + 2, and the counts before any batch have a closed form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.sampling.streams import random_stream

BLOCK = 1 << 16
"""Approximate number of samples whose datasets are drawn together."""

DEALT_STEPS = 4
"""Batches that ordinals run along, see `Mixture`. More suits ranks with fewer than 16 samples of a batch,
fewer suits ranks with more than 64."""

_COUNTS, _ORDER = 1, 2
"""Purposes of random streams."""

_BITS = 40
"""Fractional bits of the fixed-point numbers of `Stratified`: rounding errors would make counts drift."""


class Mixture(ABC):
    """An infinite sequence of datasets, in batches.

    A dataset's ordinals run along one batch slot for `DEALT_STEPS` batches, then along the next slot. So a
    rank, which has neighbouring slots of every batch, reads contiguous rows, and few row groups however many
    ranks there are.

    Args:
        shares: relative share of each dataset, non-negative with a positive sum.
        seed: of the order.
        batch_size: samples of the global batch.
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
        """Dataset index and ordinal within that dataset, from 0, of the samples at `positions`.

        All three are (n,) int64 arrays; `positions` must ascend.
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
        """Dataset and ordinal of each sample of a block."""
        order = self._order(block)
        slots, steps = self._dealt
        # `dealt` lists the block's samples in the order of their ordinals: (step, slot) → (slot, step). Two
        # batches of slots a b, samples a0 b0 a1 b1 = 0 1 2 3, become a0 a1 b0 b1 = 0 2 1 3. If all are of one
        # dataset, the rank of slot a reads its rows 0 and 1, and that of slot b rows 2 and 3.
        dealt = np.arange(len(order)).reshape(-1, steps, slots).swapaxes(1, 2).ravel()
        ordinal = np.empty_like(order)
        for dataset, before in enumerate(self._counts_before(block)):
            chosen = dealt[order[dealt] == dataset]
            ordinal[chosen] = before + np.arange(len(chosen))
        return order, ordinal

    @abstractmethod
    def _order(self, block: int) -> NDArray[np.int64]:
        """Dataset of each sample of a block."""

    @abstractmethod
    def _counts_before(self, block: int) -> NDArray[np.int64]:
        """Number of samples of each dataset in all earlier blocks."""


class Multinomial(Mixture):
    """Every sample's dataset is drawn independently; `shares`, `seed` and `batch_size` as in `Mixture`."""

    def __init__(self, shares: Sequence[float] | NDArray[np.float64], seed: int, batch_size: int) -> None:
        super().__init__(shares, seed, batch_size)
        self._reached = (0, np.zeros(len(shares), np.int64))

    def _order(self, block: int) -> NDArray[np.int64]:
        order = np.repeat(np.arange(len(self._shares)), self._counts(block))
        return random_stream(self._seed, _ORDER, block).permutation(order)

    def _counts(self, block: int) -> NDArray[np.int64]:
        return random_stream(self._seed, _COUNTS, block).multinomial(self._block_samples, self._shares)

    def _counts_before(self, block: int) -> NDArray[np.int64]:
        # Skipping a block takes about 20 microseconds and keeps nothing of it.
        reached, counts = self._reached if self._reached[0] <= block else (0, np.zeros_like(self._reached[1]))
        for earlier in range(reached, block):
            counts = counts + self._counts(earlier)
        self._reached = (block, counts)
        return counts


class Stratified(Mixture):
    """Every batch has its datasets' `shares`, as whole samples; `seed` and `batch_size` as in `Mixture`."""

    def __init__(self, shares: Sequence[float] | NDArray[np.float64], seed: int, batch_size: int) -> None:
        super().__init__(shares, seed, batch_size)
        # Dataset d has the samples from ⌊E[d−1] + u⌋ to ⌊E[d] + u⌋ of a batch, with E the cumulated shares of
        # the batch and u in [0, 1) its offset: 16 samples, shares 1/3 each, u = 0.5 → ends 5, 11, 16.
        ends = batch_size * np.cumsum(self._shares)
        ends[-1] = batch_size
        self._ends = np.rint(ends * (1 << _BITS)).astype(np.int64)

    def _order(self, block: int) -> NDArray[np.int64]:
        batches = np.arange(block * self._batches, (block + 1) * self._batches)
        # Where the samples of each dataset end in each of the batches: (batches, datasets).
        ends = (self._ends + reversed_bits(batches)[:, None]) >> _BITS
        counts = np.diff(ends, prepend=0)
        order = np.repeat(np.tile(np.arange(counts.shape[1]), len(batches)), counts.ravel())
        rows = order.reshape(len(batches), -1)
        return random_stream(self._seed, _ORDER, block).permuted(rows, axis=1).ravel()

    def _counts_before(self, block: int) -> NDArray[np.int64]:
        """Σ ⌊E + u_i⌋ over the batches i before the block, in closed form.

        Hermite's identity: ⌊x⌋ + ⌊x + 1/n⌋ + … + ⌊x + (n−1)/n⌋ = ⌊n·x⌋. The offsets of n = 2^m batches that
        begin at a multiple of n are u, u + 1/n, …, u + (n−1)/n in some order, so their sum is ⌊n (E + u)⌋.
        Any number of batches is a sum of such powers, 6 = 4 + 2. For E = 1.3 the offsets 0, 1/2, 1/4, 3/4 of
        the first four batches give 1 + 1 + 1 + 2 = 5 = ⌊4 · 1.3⌋.
        """
        batch = block * self._batches
        total, done = np.zeros_like(self._ends), 0
        for power in reversed(range(batch.bit_length())):
            if batch >> power & 1:
                offset = reversed_bits(np.asarray([done]))
                total += (self._ends + offset) >> (_BITS - power)
                done += 1 << power
        return np.diff(total, prepend=0)


def reversed_bits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Van der Corput's sequence in base 2 at the int64 `numbers`, as fixed-point numbers with 40 bits.

    The bits in reverse order, after the point: 1, 2, 3, 4 → 0.1, 0.01, 0.11, 0.001 = 1/2, 1/4, 3/4, 1/8.
    """
    result = np.zeros_like(numbers)
    for bit in range(_BITS):
        result |= ((numbers >> bit) & 1) << (_BITS - 1 - bit)
    return result
