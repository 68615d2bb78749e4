"""Whether one variant is better than another by more than chance: a paired t-test over seeds.

Trials with the same seed see the same samples in the same order, so they are compared in pairs, by their
means over the datasets. Datasets are not pairs of their own: chance in a training affects its results on all
of them, so they would make few trainings look like many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Figures = Mapping[int, float]
"""Seed → mean AbsRel of one variant."""

_LEVEL = 0.05

ALIKE = "≈"
"""Mark of a figure or name of a row that is `indistinct`."""

UNCLEAR = f"not significantly different from the best (paired t-test over seeds, p ≥ {_LEVEL:g})"
"""What is said of rows that are `indistinct`."""


@dataclass(frozen=True)
class Summary:
    """`mean` of `count` seeds, and their sample standard `deviation` (NaN of fewer than two)."""

    mean: float
    deviation: float
    count: int

    def __str__(self) -> str:
        spread = "" if math.isnan(self.deviation) else f" ± {self.deviation:.4f}"
        return f"{self.mean:.4f}{spread}"


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation of at least one of `values`."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(np.mean(values)), deviation, len(values))


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two variants.

    Attributes:
        difference: mean of the second minus the first, over the pairs; positive where the first is better.
        p_value: of a two-sided paired t-test; NaN with fewer than two seeds or without any spread.
        seeds: number of pairs.
    """

    difference: float
    p_value: float
    seeds: int

    @property
    def is_significant(self) -> bool:
        """Whether the difference is significant at the 5 % level; False if there was no test."""
        return self.p_value < _LEVEL


def compare(mine: Figures, theirs: Figures) -> Comparison:
    """Compare the variant `mine` with `theirs` on the seeds that both have, at least one."""
    shared = sorted(mine.keys() & theirs.keys())
    a, b = (np.array([figures[seed] for seed in shared]) for figures in (mine, theirs))
    # Rounding of equal differences is no spread.
    if len(shared) < 2 or np.ptp(b - a) <= 1e-12 * np.abs(b).max():
        return Comparison(float(np.mean(b - a)), math.nan, len(shared))
    return Comparison(float(np.mean(b - a)), float(stats.ttest_rel(b, a).pvalue), len(shared))


def best_of(figures: Mapping[str, Figures]) -> str:
    """The title of the row with the lowest mean, of rows title → `figures`; empty without figures."""
    means = {title: float(np.mean(list(found.values()))) for title, found in figures.items() if found}
    return min(means, key=means.__getitem__, default="")


def indistinct(figures: Mapping[str, Figures]) -> frozenset[str]:
    """Titles of the rows that do not differ significantly from the best, of rows title → `figures`.

    Without a test, as with one seed, no difference is significant.
    """
    best = best_of(figures)
    others = {title for title, found in figures.items() if found and title != best}
    tested = {title for title in others if figures[title].keys() & figures[best].keys()}
    clear = {title for title in tested if compare(figures[best], figures[title]).is_significant}
    return frozenset(others - clear)


def note(best: str, others: Mapping[str, Comparison]) -> str:
    """One sentence: from which of the `others` the row `best` differs significantly."""
    tested = {name: c for name, c in others.items() if not math.isnan(c.p_value)}
    if not tested:
        return f"{best} has the lowest mean; one seed cannot tell that from chance."
    clear = [name for name, c in tested.items() if c.is_significant and c.difference > 0]
    seeds = min(c.seeds for c in tested.values())
    known = f"paired t-test over {seeds} seeds, p < {_LEVEL:g}"
    if len(clear) == len(others):
        return f"{best} is better than all others ({known})."
    if clear:
        return f"{best} is better than {', '.join(clear)}; from the others it cannot be told apart ({known})."
    return f"{best} has the lowest mean, but cannot be told apart from the others ({known})."
