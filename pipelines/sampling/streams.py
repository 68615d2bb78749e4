"""Random numbers with random access: each position of a run has its own, independent of those before it.

Streams are NumPy's Philox, keyed by the seed, with (purpose, position) as the counter. If a few numbers per
position suffice, they are hashes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_STAGES = 1 << 63
"""First value that `stage_seed` hashes, far from all positions of samples; `second_seed` one before it."""


def random_stream(seed: int, purpose: int, *position: int) -> np.random.Generator:
    """The stream of `seed` for one `purpose` and `position` (at most two numbers).

    Philox counts in its lowest word, so streams of different higher words never overlap.
    """
    words = [0, purpose, *position, 0][:4]
    return np.random.Generator(np.random.Philox(key=seed, counter=words))


def hash64(seed: int, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood, 2014) of `seed` and each of `values`: 64 well-mixed bits."""
    with np.errstate(over="ignore"):
        mixed = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + (values + np.uint64(1)) * _INCREMENT
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def stage_seed(seed: int, stage: int) -> int:
    """Seed of stage number `stage` of a run with this `seed`; the first stage has the run's seed."""
    if stage == 0:
        return seed
    return int(hash64(seed, np.asarray([_STAGES + stage], np.uint64))[0])


def second_seed(seed: int) -> int:
    """Seed of further random numbers for the positions of a run with this `seed`."""
    return int(hash64(seed, np.asarray([_STAGES - 1], np.uint64))[0])


def augmentation_draws(seed: int, positions: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Random numbers for the augmentation of samples, (n, count) float64 in [0, 1).

    `count` numbers for each of the (n,) `positions` in the run with this `seed`. The 53 highest bits of each
    hash are kept, as many as the significand of a float64 has.
    """
    counters = (count * positions[:, None] + np.arange(count)).astype(np.uint64)
    return (hash64(seed, counters) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
