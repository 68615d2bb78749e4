"""The tables of a sweep for the terminal: mean ± deviation over seeds, and what is more than chance."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import tracking
from tune import records
from tune.ablations import Table
from tune.plan import SweepPlan
from tune.significance import Figures, compare, note, summarise
from tune.sweep_runs import children


@dataclass(frozen=True)
class RowSummary:
    """A row of a table: its title and, for each column, `mean ± deviation` or an empty text."""

    title: str
    cells: tuple[str, ...]


def figures_of(run: tracking.Run, datasets: list[str]) -> dict[str, Figures]:
    """Variant → its AbsRel by seed and dataset, of the trials that were trained to the end."""
    tracking.connect()
    found: dict[str, dict[tuple[int, str], float]] = {}
    for child in children(run.run_id):
        tags, metrics = child.data.tags, child.data.metrics
        if records.STOPPED_EARLY in tags or records.VARIANT not in tags:
            continue
        seed = int(tags[records.SEED])
        for dataset in datasets:
            if (name := records.abs_rel(dataset)) in metrics:
                found.setdefault(tags[records.VARIANT], {})[seed, dataset] = metrics[name]
    return dict(found)


def summarise_table(
    plan: SweepPlan, table: Table, figures: dict[str, Figures]
) -> tuple[list[RowSummary], str]:
    """A table's rows with a cell for each dataset and for the mean, and a note on significance."""
    datasets = list(plan.manifests)
    titles = {
        variant.rows[table.name]: variant.key for variant in plan.variants if table.name in variant.rows
    }
    rows, means = [], {}
    for title, key in titles.items():
        mine = figures.get(key, {})
        seeds = sorted({seed for seed, _ in mine})
        columns = [[mine[s, d] for s in seeds if (s, d) in mine] for d in datasets]
        whole = [
            sum(mine[s, d] for d in datasets) / len(datasets) for s in seeds if _has_all(mine, s, datasets)
        ]
        rows.append(RowSummary(title, tuple(str(summarise(c)) if c else "" for c in (*columns, whole))))
        if whole:
            means[title] = summarise(whole).mean
    if len(means) < 2:
        return rows, ""
    best = min(means, key=lambda title: means[title])
    others = {t: compare(figures[titles[best]], figures[titles[t]]) for t in means if t != best}
    return rows, note(best, others)


def _has_all(figures: Figures, seed: int, datasets: list[str]) -> bool:
    return all((seed, dataset) in figures for dataset in datasets)


def table_rows(
    plan: SweepPlan, run: tracking.Run, table: Table, figures: dict[str, Figures]
) -> tuple[list[str], list[RowSummary], str]:
    """What to print of any table: columns, rows and a note."""
    if not table.trained:
        return ["parameters [million]", "time [ms]"], speeds(run, table), ""
    if table.name == "resolution":
        columns, rows = resolution_changes(run, table)
        return columns, rows, ""
    return [*plan.manifests, records.MEAN], *summarise_table(plan, table, figures)


def resolution_changes(run: tracking.Run, table: Table) -> tuple[list[str], list[RowSummary]]:
    """Figure 4: the change of mean AbsRel in percent at each side, over the seeds; and the sides."""
    changes: dict[str, dict[int, list[float]]] = {}
    for child in children(run.run_id):
        title = child.data.tags.get(records.table_tag(table.name))
        at = {side: value for key, value in child.data.metrics.items() if (side := records.side_of(key))}
        if title is not None and at:
            for side, value in at.items():
                percent = 100 * (value / at[min(at)] - 1)
                changes.setdefault(title, {}).setdefault(side, []).append(percent)
    sides = sorted({side for found in changes.values() for side in found})
    rows = [
        RowSummary(row.title, tuple(_mean_percent(changes.get(row.title, {}).get(s, [])) for s in sides))
        for row in table.rows
    ]
    return [f"{side} px" for side in sides], rows


def _mean_percent(values: list[float]) -> str:
    return f"{summarise(values).mean:+.1f} %" if values else ""


def speeds(run: tracking.Run, table: Table) -> list[RowSummary]:
    """Table 9's rows: parameters in millions, latency in milliseconds."""
    found = {}
    for child in children(run.run_id):
        title = child.data.tags.get(records.table_tag(table.name))
        if title is not None and records.LATENCY in child.data.metrics:
            metrics = child.data.metrics
            found[title] = (f"{metrics[records.PARAMETERS]:.1f}", f"{metrics[records.LATENCY]:.1f}")
    return [RowSummary(row.title, found.get(row.title, ("", ""))) for row in table.rows]
