"""The charts of a sweep's report: ours beside the paper's, learning curves, Figure 4, accuracy over size."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pipelines.report.charts import Chart, Dots, Line, dot_chart, line_chart, scatter_chart
from tune import records
from tune.ablations import BACKBONE
from tune.report.comparison import RowResults, TableResults, reference
from tune.report.results import SweepResults, history
from tune.report.tables import relative_change, sides_of

_MEAN = records.abs_rel(records.MEAN)
_POINTS = 150
"""Most points of a curve; a longer one is drawn as means of neighbours."""


def charts_of(results: TableResults) -> Iterator[Chart]:
    """The charts of the `results` of a table of trained models: means, validation and loss curves."""
    table, rows = results.table.name, []
    for row in results.rows:
        value = row.value(_MEAN)
        deviation = value.deviation if value and not math.isnan(value.deviation) else None
        paper = reference(row.row, records.MEAN) if results.same_datasets else None
        rows.append(Dots(row.title, value.mean if value else None, deviation, paper))
    if any(row.value is not None for row in rows):
        caption, label = "Bars are the deviation over seeds. Lower is better.", "AbsRel, mean over datasets"
        yield dot_chart(f"{table}_mean", "Mean AbsRel", caption, rows, label, ("ours", "the paper"))
    for metric, name, title, label, what in (
        (_MEAN, "validation", "Validation", "mean AbsRel", "AbsRel on the validation images"),
        ("loss", "loss", "Training loss", "loss", "The loss"),
    ):
        lines = [line for row in results.rows if (line := _curve(row, metric))]
        caption = f"{what} over training, mean over seeds; shaded from the lowest to the highest seed."
        if lines:
            yield line_chart(f"{table}_{name}", title, caption, lines, "step", label)


def resolution_chart(results: TableResults) -> Chart | None:
    """Figure 4 from its `results`; None without metrics at two sides."""
    sides = sides_of(results)
    lines = []
    for row in results.rows:
        values = [relative_change(row, side, sides[0]) for side in sides]
        if len(sides) > 1 and any(values):
            means = np.array([value.mean if value else np.nan for value in values])
            spread = np.array([np.nan_to_num(value.deviation) if value else np.nan for value in values])
            lines.append(Line(row.title, np.array(sides, np.float64), means, means - spread, means + spread))
    if not lines:
        return None
    title, above = "Figure 4: inference resolution", f"the {sides[0]} pixels of training"
    caption = f"By how much the mean AbsRel rises when images are larger than {above}."
    labels = ("side of the images in pixels", "change of AbsRel in percent")
    return line_chart("resolution", title, caption, lines, *labels, ticks=sides, zero=True)


def cost_chart(sweep: SweepResults) -> Chart | None:
    """Mean AbsRel over parameters of the backbones of a `sweep` that have both; None of fewer than two."""
    points: dict[str, list[tuple[float, float]]] = {}
    for trial in sweep.trials:
        size, error = trial.metrics.get(records.PARAMETERS), trial.metrics.get(_MEAN)
        if BACKBONE.name in trial.rows and trial.counts and size is not None and error is not None:
            points.setdefault(trial.rows[BACKBONE.name], []).append((size, error))
    if len(points) < 2:
        return None
    means = {title: tuple(np.mean(found, axis=0)) for title, found in points.items()}
    caption = "Mean AbsRel over seeds against parameters: lower left is better."
    return scatter_chart("cost", "Accuracy and size", caption, means, "million parameters", "mean AbsRel")


def _curve(row: RowResults, metric: str) -> Line | None:
    """Mean, lowest and highest value over seeds, at the steps that all of them have."""
    curves = [history(trial, metric) for trial in row.trials if trial.counts and metric in trial.metrics]
    steps = sorted(set.intersection(*(set(found.tolist()) for found, _ in curves))) if curves else []
    if not steps:
        return None
    values = np.stack([found[np.isin(at, steps)] for at, found in curves])
    parts = np.array_split(np.arange(len(steps)), min(len(steps), _POINTS))
    x = np.array([np.array(steps, np.float64)[part].mean() for part in parts])
    means = np.stack([values[:, part].mean(axis=1) for part in parts], axis=1)
    return Line(row.title, x, means.mean(0), means.min(0), means.max(0))
