"""Confidence intervals of means, by bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


def bootstrap_interval(values: NDArray[np.float64], resamples: int, seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean of independent values.

    The percentile bootstrap (Efron, 1979): the mean of as many values drawn with replacement, again and
    again; between the 2.5th and the 97.5th percentile of these means lies the interval.

    Args:
        values: (n,), in an order that does not depend on who computed them.
        resamples: how often.
        seed: decides the draws.

    Returns:
        Lower and upper end; NaN without values.
    """
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    # One at a time: all of DIW's together would be a gigabyte.
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
