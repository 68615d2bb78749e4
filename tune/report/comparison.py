"""A table of a sweep beside the paper's: trials of each row, means over seeds, agreement of ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from tune import records
from tune.ablations import DATASETS, PAPER, AblationTable, Row
from tune.report.results import SweepResults, Trial
from tune.report.significance import Comparison, Summary, compare, summarise

_PRINTED = 1e-4
"""Largest difference that rounding to four digits explains: half of it from the printed mean, half
from the figures it is recomputed from."""


@dataclass(frozen=True, slots=True)
class RowResults:
    """A `row` of the paper's table, or of a user's own, with its `trials`, one a seed, of any status.

    The `planned` seeds are those that the plan has.
    """

    row: Row
    trials: tuple[Trial, ...]
    planned: tuple[int, ...]

    @property
    def title(self) -> str:
        """Title of the row."""
        return self.row.title

    def by_seed(self, metric: str) -> dict[int, float]:
        """Seed → value of a `metric`, of the trials that count and have a finite one."""
        found = {t.seed: t.metrics.get(metric, math.nan) for t in self.trials if t.counts}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def value(self, metric: str) -> Summary | None:
        """The mean of a `metric` over seeds; None without any."""
        values = list(self.by_seed(metric).values())
        return summarise(values) if values else None

    @property
    def missing(self) -> list[str]:
        """Status of the seeds without figures: `seed 2 failed`, `seeds 0, 1 not started`."""
        states = {trial.seed: trial.state for trial in self.trials if not trial.counts}
        there = {trial.seed for trial in self.trials}
        states |= {seed: "not started" for seed in self.planned if seed not in there}
        alike: dict[str, list[int]] = {}
        for seed, state in sorted(states.items()):
            alike.setdefault(state, []).append(seed)
        return [
            f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} {state}"
            for state, seeds in alike.items()
        ]


@dataclass(frozen=True, slots=True)
class TableResults:
    """A `table` with the results of its `rows`, in the paper's order."""

    table: AblationTable
    rows: tuple[RowResults, ...]

    def datasets(self) -> tuple[str, ...]:
        """Datasets with figures: the paper's in its order if any row has them, then others by name."""
        prefix = records.abs_rel("")
        metrics = {metric for row in self.rows for trial in row.trials for metric in trial.metrics}
        ours = {m.removeprefix(prefix) for m in metrics if m.startswith(prefix)} - {records.MEAN}
        known = (name for name in DATASETS if name in ours | self._paper_datasets())
        return (*known, *sorted(ours - set(DATASETS)))

    def mean_map(self, name: str) -> float | None:
        """AbsRel of the mean map on the dataset `name`, or `MEAN`; None if no trial measured it."""
        found = (trial.metrics.get(records.mean_map(name)) for row in self.rows for trial in row.trials)
        return next((value for value in found if value is not None), None)

    @property
    def same_datasets(self) -> bool:
        """Whether our means are over the paper's datasets."""
        paper = self._paper_datasets()
        return paper == set(self.datasets()) and all(
            row.value(records.abs_rel(name)) for row in self.rows if row.value(_MEAN) for name in paper
        )

    def _paper_datasets(self) -> set[str]:
        return {name for row in self.rows for name in row.row.paper} & set(DATASETS)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of our order of rows with the paper's.

    Attributes:
        tau: Kendall's τ-b, from -1 (reversed) over 0 to 1 (the same); NaN with fewer than two rows.
        alike: pairs of rows that both order alike.
        pairs: pairs of rows that the paper orders.
    """

    tau: float
    alike: int
    pairs: int


_MEAN = records.abs_rel(records.MEAN)


def tables_of(sweep: SweepResults) -> list[TableResults]:
    """The tables of a `sweep`, the paper's first, with all planned rows."""
    tagged = [name for trial in sweep.trials for name in trial.rows]
    planned = {table["name"]: table for table in sweep.plan.get("tables", [])}
    names = list(dict.fromkeys([*planned, *tagged]))
    names.sort(key=lambda name: records.TABLES.index(name) if name in PAPER else len(records.TABLES))
    return [_table(sweep, name, planned.get(name, {})) for name in names]


def _table(sweep: SweepResults, name: str, planned: Mapping[str, Any]) -> TableResults:
    """A table as in the plan; without a plan the paper's, or the rows of the trials' tags."""
    table = _planned_table(name, planned) if planned else PAPER.get(name, AblationTable(name, "", name, ()))
    known = {row.title: row for row in table.rows}
    tagged = [trial.rows[name] for trial in sweep.trials if name in trial.rows]
    seeds = tuple(sorted({trial.seed for trial in sweep.trials}))
    rows = []
    for title in dict.fromkeys([*known, *tagged]):
        found = tuple(trial for trial in sweep.trials if trial.rows.get(name) == title)
        # Of an untrained table only those that were measured, if any were.
        measured = tuple(trial for trial in found if records.PARAMETERS in trial.metrics)
        trials = measured if measured and not table.trained else found
        planned_seeds = seeds if table.trained else seeds[:1]
        rows.append(RowResults(known.get(title, Row(title, {})), trials, planned_seeds))
    return TableResults(replace(table, rows=tuple(row.row for row in rows)), tuple(rows))


def _planned_table(name: str, planned: Mapping[str, Any]) -> AblationTable:
    rows = tuple(
        Row(row["title"], row.get("changes", {}), row.get("paper", {}), frozenset(row.get("bold", ())))
        for row in planned["rows"]
    )
    number, caption, claims = (planned.get(key, "") for key in ("number", "caption", "claims"))
    notes = tuple(planned.get("notes", ()))
    return AblationTable(name, number, caption, rows, claims, notes, planned["trained"])


def reference(row: Row, column: str) -> float | None:
    """The printed figure of a `row` in a `column`, or the recomputed mean where the printed one is wrong."""
    printed = row.paper.get(column)
    recomputed = row.recomputed_mean() if column == records.MEAN else None
    if printed is not None and recomputed is not None and abs(printed - recomputed) > _PRINTED:
        return recomputed
    return printed


def agreement(results: TableResults) -> Agreement | None:
    """Agreement of our `results` with the paper's order by mean AbsRel; None with fewer than two rows."""
    both = [
        (theirs, found.mean)
        for row in results.rows
        if (theirs := reference(row.row, records.MEAN)) is not None and (found := row.value(_MEAN))
    ]
    if len(both) < 2:
        return None
    signs = [tuple(np.sign(np.subtract(first, second))) for first, second in combinations(both, 2)]
    alike = [bool(theirs == mine) for theirs, mine in signs if theirs]
    tau = float(stats.kendalltau(*zip(*both, strict=True)).statistic)
    return Agreement(tau, sum(alike), len(alike))


def against_the_best(results: TableResults) -> tuple[str, dict[str, Comparison]] | None:
    """Title of the best row of `results`, and all others compared with it; None with fewer than two rows."""
    means = {row.title: ours.mean for row in results.rows if (ours := row.value(_MEAN))}
    if len(means) < 2:
        return None
    best = min(means, key=means.__getitem__)
    figures = {row.title: row.by_seed(_MEAN) for row in results.rows if row.title in means}
    mine = figures.pop(best)
    others = {title: compare(mine, found) for title, found in figures.items() if mine.keys() & found.keys()}
    return (best, others) if others else None
