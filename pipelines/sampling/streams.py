"""Random numbers with random access: each position of a run has its own, reached without those before it.

Streams are NumPy's Philox, keyed by the seed and counted from (purpose, position). Where one number a
position is enough, it is a hash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_STAGES = 1 << 63
"""Where the hashed values of `stage_seed` begin, far from any sample's position."""


def random_stream(seed: int, purpose: int, *position: int) -> np.random.Generator:
    """The stream of one purpose and position (at most two numbers)."""
    words = [0, purpose, *position, 0][:4]
    return np.random.Generator(np.random.Philox(key=seed, counter=words))


def hash64(seed: int, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood, 2014) of seed and value: 64 well-mixed bits each."""
    with np.errstate(over="ignore"):
        mixed = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + (values + np.uint64(1)) * _INCREMENT
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def stage_seed(seed: int, stage: int) -> int:
    """The seed of one stage of a run; the first stage has the run's own."""
    if stage == 0:
        return seed
    return int(hash64(seed, np.asarray([_STAGES + stage], np.uint64))[0])


def augmentation_draws(seed: int, positions: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The `count` random numbers that decide how each of the samples at `positions` of the run is augmented.

    Returns:
        (n, count) float64 in [0, 1).
    """
    counters = (count * positions[:, None] + np.arange(count)).astype(np.uint64)
    return (hash64(seed, counters) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
