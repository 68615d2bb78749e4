"""Whether one variant is better than another, or only luckier: a paired t-test over seeds.

Trials with the same seed see the same samples in the same order, so they are compared in pairs, and what
counts is the difference of their means over the datasets. Datasets are no pairs of their own: what luck a
seed had in training shows on all of them, so they would make few trainings look like many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Figures = Mapping[int, float]
"""Seed → mean AbsRel of one variant."""


@dataclass(frozen=True)
class Summary:
    """Mean of some seeds' figures, and their standard deviation (NaN of fewer than two)."""

    mean: float
    deviation: float
    count: int

    def __str__(self) -> str:
        spread = "" if math.isnan(self.deviation) else f" ± {self.deviation:.4f}"
        return f"{self.mean:.4f}{spread}"


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation.

    Raises:
        ValueError: of no values.
    """
    if not values:
        raise ValueError("no values")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(np.mean(values)), deviation, len(values))


@dataclass(frozen=True)
class Comparison:
    """A paired comparison.

    Attributes:
        difference: mean of theirs minus mine, over the pairs; positive where mine is better.
        p_value: of a two-sided paired t-test; NaN where it cannot tell: fewer than two seeds, or no spread.
        seeds: how many.
    """

    difference: float
    p_value: float
    seeds: int


def compare(mine: Figures, theirs: Figures) -> Comparison:
    """Compare two variants on the seeds that both have.

    Raises:
        ValueError: if there are none.
    """
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        raise ValueError("nothing in common to compare")
    a, b = (np.array([figures[seed] for seed in shared]) for figures in (mine, theirs))
    if len(shared) < 2 or np.ptp(b - a) == 0:
        return Comparison(float(np.mean(b - a)), math.nan, len(shared))
    return Comparison(float(np.mean(b - a)), float(stats.ttest_rel(b, a).pvalue), len(shared))


def note(best: str, others: Mapping[str, Comparison], level: float = 0.05) -> str:
    """One sentence: from which of the others the best differs by more than chance."""
    tested = {name: c for name, c in others.items() if not math.isnan(c.p_value)}
    if not tested:
        return f"{best} has the lowest mean; one seed cannot tell that from chance."
    clear = [name for name, c in tested.items() if c.p_value < level and c.difference > 0]
    seeds = min(c.seeds for c in tested.values())
    known = f"paired t-test over {seeds} seeds, p < {level:g}"
    if len(clear) == len(others):
        return f"{best} is better than all others ({known})."
    if clear:
        return f"{best} is better than {', '.join(clear)}; from the others it cannot be told apart ({known})."
    return f"{best} has the lowest mean, but cannot be told apart from the others ({known})."
