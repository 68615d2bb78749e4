"""The tables of a sweep's report: paper, ours, difference; Figure 4 in percent; Table 9; the trials."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from pipelines.report.table import MISSING, Cell, Column, NumberTable, Tone
from tune import records
from tune.report.comparison import RowResults, TableResults, reference
from tune.report.results import SweepResults
from tune.report.significance import ALIKE, UNCLEAR, Summary, best_of, indistinct, summarise

_HEADINGS = {"hrwsi": "HRWSI", "blendedmvs": "BlendedMVS", "redweb": "ReDWeb", records.MEAN: "Mean"}
"""Datasets as the paper writes them."""

_SIDE = re.compile(r"resolution_(\d+)/")
_MEAN = records.abs_rel(records.MEAN)


def accuracy_table(results: TableResults) -> NumberTable:
    """AbsRel of every dataset and their mean in `results`: the paper's, ours ± deviation, the difference.

    The last row is the mean map, where trials measured it.
    """
    names = [*results.datasets(), records.MEAN]
    compared = [name for name in names if any(name in row.row.paper for row in results.rows)]
    columns = [Column("row", text=True)]
    for name in names:
        titles = ("paper", "ours", "difference") if name in compared else ("ours",)
        columns += [Column(title, _HEADINGS.get(name, name)) for title in titles]
    rows = results.rows
    unclear = {
        name: indistinct({row.title: row.by_seed(records.abs_rel(name)) for row in rows}) for name in names
    }
    title = _title(results, f"AbsRel after affine alignment; lower is better{_legend(unclear)}")
    table = NumberTable(title, [*columns, Column("seeds")])
    paper_best = {name: _lowest([row.row.paper.get(name) for row in rows]) for name in compared}
    our_best = {name: _lowest_mean([row.value(records.abs_rel(name)) for row in rows]) for name in names}
    for row in results.rows:
        cells = [Cell.of(row.title)]
        for name in names:
            ours = row.value(records.abs_rel(name))
            shown = _our_cell(row, ours, our_best[name], alike=row.title in unclear[name])
            if ours is None and name != records.MEAN:
                shown = Cell.absent()
            if name not in compared:
                cells.append(shown)
                continue
            same = name != records.MEAN or results.same_datasets
            difference = _difference(reference(row.row, name), ours) if same else Cell.absent()
            cells += [_paper_cell(row, name, paper_best[name]), shown, difference]
        table.rows.append([*cells, _seeds(row)])
    if any(results.mean_map(name) for name in names):
        cells = [Cell.of("mean map")]
        for name in names:
            baseline = results.mean_map(name)
            shown = Cell.absent() if baseline is None else Cell(f"{baseline:.4f}", baseline)
            cells += [Cell.absent(), shown, Cell.absent()] if name in compared else [shown]
        table.rows.append([*cells, Cell.absent()])
    return table


def sides_of(results: TableResults) -> list[int]:
    """Sides in pixels of the images that `results` has metrics of; the first is that of training."""
    metrics = {metric for row in results.rows for trial in row.trials for metric in trial.metrics}
    return sorted({int(match[1]) for metric in metrics if (match := _SIDE.match(metric))})


def relative_change(row: RowResults, side: int, base: int) -> dict[int, float]:
    """Seed → percent by which the mean AbsRel of a `row` is higher at `side` than at `base` pixels."""
    here, there = (row.by_seed(records.abs_rel_at(pixels, records.MEAN)) for pixels in (side, base))
    return {seed: 100 * (here[seed] / there[seed] - 1) for seed in here if there.get(seed)}


def resolution_table(results: TableResults) -> NumberTable:
    """Figure 4 of `results` as numbers: AbsRel at the training resolution, and its change at larger ones."""
    sides = sides_of(results)
    what = "change of the mean AbsRel in percent; lower is better"
    if not sides:
        columns = [Column("row", text=True), Column("seeds")]
        rows = [[Cell.of(row.title), _seeds(row)] for row in results.rows]
        return NumberTable(_title(results, what), columns, rows)
    base, *larger = sides
    changes = {side: {row.title: relative_change(row, side, base) for row in results.rows} for side in larger}
    unclear = {side: indistinct(found) for side, found in changes.items()}
    columns = [Column("row", text=True), Column(f"AbsRel at {base} px")]
    columns += [Column(f"{side} px", "Change at") for side in larger] + [Column("seeds")]
    table = NumberTable(_title(results, what + _legend(unclear)), columns)
    for row in results.rows:
        at_base = row.value(records.abs_rel_at(base, records.MEAN))
        cells = [Cell.of(row.title), _our_cell(row, at_base, None)]
        for side in larger:
            found = changes[side]
            if not found[row.title]:
                cells.append(Cell.absent(_why(row)))
                continue
            change = summarise(list(found[row.title].values()))
            mark = ALIKE if row.title in unclear[side] else ""
            text, spread = f"{mark}{_signed(change.mean, 1)} %", _spread(change, 1)
            cells.append(Cell(text, change.mean, spread, best=row.title == best_of(found)))
        table.rows.append([*cells, _seeds(row)])
    return table


def speed_table(results: TableResults) -> NumberTable:
    """Table 9 of `results`: parameters and latency, with the device's name, which was not the paper's."""
    tags = [trial.tags for row in results.rows for trial in row.trials]
    devices = sorted({found[records.LATENCY_DEVICE] for found in tags if records.LATENCY_DEVICE in found})
    title = _title(results, f"latency measured on {', '.join(devices) or 'no device yet'}")
    groups = {records.PARAMETERS: "Params [million]", records.LATENCY: "Latency [ms]"}
    columns = [Column("model", text=True)]
    for group in groups.values():
        columns += [Column(title, group) for title in ("paper", "ours", "difference")]
    table = NumberTable(title, columns)
    for row in results.rows:
        cells = [Cell.of(row.title)]
        for metric in groups:
            paper, ours = row.row.paper.get(metric), row.value(metric)
            cells.append(Cell.absent() if paper is None else Cell(f"{paper:.0f}", paper))
            change = 100 * (ours.mean / paper - 1) if paper and ours else None
            percent = Cell.absent() if change is None else Cell(f"{_signed(change, 1)} %", change)
            cells += [_our_cell(row, ours, None, digits=1), percent]
        table.rows.append(cells)
    return table


def trial_table(sweep: SweepResults) -> NumberTable:
    """Every training of a `sweep`: how it ended, its mean AbsRel, speed and hours."""
    titles = ("variant", "seed", "ended", "AbsRel", "images/s", "hours", "MLflow run")
    columns = [Column(title, text=title in ("variant", "ended", "MLflow run")) for title in titles]
    table = NumberTable("Trainings of this sweep", columns)
    for trial in sweep.trainings():
        ended = Cell(trial.state, trial.state, tone="" if trial.counts else "failed")
        cells = [Cell.of(trial.variant), Cell(str(trial.seed), trial.seed), ended]
        for metric, digits in ((_MEAN, 4), ("images_per_second", 1), (records.TRAIN_HOURS, 3)):
            value = trial.metrics.get(metric)
            cells.append(Cell.absent() if value is None else Cell(f"{value:.{digits}f}", value))
        table.rows.append([*cells, Cell.of(trial.run_id)])
    return table


def data_table(sweep: SweepResults) -> NumberTable:
    """The prepared datasets of the trainings of a `sweep`."""
    titles = ("dataset", "samples", "digest of the manifest")
    table = NumberTable("Data of this sweep", [Column(title, text=True) for title in titles])
    for dataset in sweep.data():
        samples = ", ".join(f"{count} {split}" for split, count in dataset.samples.items()) or MISSING
        table.rows.append([Cell.of(dataset.name), Cell.of(samples), Cell.of(dataset.digest)])
    return table


def _title(results: TableResults, what: str) -> str:
    return f"{results.table.number or results.table.name}: {what}"


def _legend(unclear: Mapping[Any, AbstractSet[str]]) -> str:
    return f"; {ALIKE}: {UNCLEAR}" if any(unclear.values()) else ""


def _paper_cell(row: RowResults, name: str, best: float | None) -> Cell:
    printed, compared = row.row.paper.get(name), reference(row.row, name)
    if printed is None:
        return Cell.absent()
    slip = f"({compared:.4f})" if compared is not None and compared != printed else ""
    # Bold as in the paper; in a table without any bold, the best.
    bold = name in row.row.bold or (best == printed and not row.row.bold)
    return Cell(f"{printed:.4f}", printed, slip, best=bold)


def _our_cell(
    row: RowResults, ours: Summary | None, best: float | None, digits: int = 4, alike: bool = False
) -> Cell:
    if ours is None:
        return Cell(_why(row), None, tone="failed" if row.missing else "missing")
    text = f"{ALIKE}{ours.mean:.{digits}f}" if alike else f"{ours.mean:.{digits}f}"
    return Cell(text, ours.mean, _spread(ours, digits), best=ours.mean == best)


def _spread(ours: Summary, digits: int) -> str:
    return "" if math.isnan(ours.deviation) else f"± {ours.deviation:.{digits}f}"


def _difference(paper: float | None, ours: Summary | None) -> Cell:
    if paper is None or ours is None:
        return Cell.absent()
    difference = ours.mean - paper
    tone: Tone = "better" if difference < 0 else "worse" if difference > 0 else ""
    percent = f"{_signed(100 * difference / paper, 1)} %"
    return Cell(_signed(difference, 4), difference, percent, tone=tone)


def _seeds(row: RowResults) -> Cell:
    done, planned = sum(trial.counts for trial in row.trials), len(row.planned)
    return Cell(f"{done} of {planned}", done, tone="failed" if row.missing else "")


def _why(row: RowResults) -> str:
    """Why there is no figure: the status of the trials."""
    states = {trial.state for trial in row.trials if not trial.counts}
    if not row.trials:
        return "not run"
    return next(iter(states)) if len(states) == 1 else (", ".join(sorted(states)) or MISSING)


def _lowest(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _lowest_mean(values: Sequence[Summary | None]) -> float | None:
    return _lowest([value.mean if value else None for value in values])


def _signed(value: float, digits: int) -> str:
    """With a sign, U+2212 for minus; without one if all printed digits are 0."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "\N{MINUS SIGN}")
