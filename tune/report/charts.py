"""The charts of a sweep's report: ours beside the paper's, learning curves, Figure 4, accuracy over size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from pipelines.report.charts import (
    SERIES,
    Chart,
    Dots,
    Line,
    colours_of,
    dot_chart,
    line_chart,
    scatter_chart,
)
from tune import records
from tune.ablations import BACKBONE
from tune.report.comparison import RowResults, TableResults, reference
from tune.report.results import SweepResults, history
from tune.report.significance import ALIKE, UNCLEAR, indistinct, summarise
from tune.report.tables import relative_change, sides_of

_MEAN = records.abs_rel(records.MEAN)
_POINTS = 150
"""Most points of a curve; a longer one is drawn as means of neighbours."""


Colours = Mapping[str, str]
"""Variant → its colour in every chart of the sweep."""


def variant_colours(sweep: SweepResults) -> Colours:
    """The colours of a `sweep`'s variants, in the order of its plan."""
    planned = (variant["key"] for variant in sweep.plan.get("variants", []))
    return colours_of((*planned, *(trial.variant for trial in sweep.trials)))


def charts_of(results: TableResults, colours: Colours) -> Iterator[Chart]:
    """The charts of the `results` of a table of trained models: means, validation and loss curves.

    Variants are drawn in their `colours`.
    """
    table, rows = results.table.name, []
    unclear = indistinct({row.title: row.by_seed(_MEAN) for row in results.rows})
    for row in results.rows:
        value = row.value(_MEAN)
        deviation = value.deviation if value and not math.isnan(value.deviation) else None
        paper = reference(row.row, records.MEAN) if results.same_datasets else None
        mean, clear = value.mean if value else None, row.title not in unclear
        rows.append(Dots(row.title, mean, deviation, paper, _colour(row, colours), clear))
    if any(row.value is not None for row in rows):
        baseline = results.mean_map(records.MEAN)
        caption = "Bars are the deviation over seeds. Lower is better."
        caption += f" Hollow: {UNCLEAR}." if unclear else ""
        caption += f" The mean map, which does not look at the image, has {baseline:.4f}." if baseline else ""
        label, names = "AbsRel, mean over datasets", ("ours", "ours, like the best", "the paper")
        yield dot_chart(f"{table}_mean", "Mean AbsRel", caption, rows, label, names)
    for metric, name, title, label, what, alike in (
        (_MEAN, "validation", "Validation", "mean AbsRel", "AbsRel on the validation images", unclear),
        ("loss", "loss", "Training loss", "loss", "The loss", frozenset[str]()),
    ):
        lines = [line for row in results.rows if (line := _curve(row, metric, colours, alike))]
        caption = f"{what} over training, mean over seeds; shaded from the lowest to the highest seed."
        caption += _legend(alike)
        if lines:
            yield line_chart(f"{table}_{name}", title, caption, lines, "step", label)


def resolution_chart(results: TableResults, colours: Colours) -> Chart | None:
    """Figure 4 from its `results`, variants in their `colours`; None without metrics at two sides."""
    sides = sides_of(results)
    lines, alike = [], frozenset[str]()
    if len(sides) > 1:
        alike = indistinct({row.title: relative_change(row, sides[-1], sides[0]) for row in results.rows})
    for row in results.rows:
        changes = [list(relative_change(row, side, sides[0]).values()) for side in sides]
        values = [summarise(found) if found else None for found in changes]
        if len(sides) > 1 and any(values):
            means = np.array([value.mean if value else np.nan for value in values])
            spread = np.array([np.nan_to_num(value.deviation) if value else np.nan for value in values])
            x, band = np.array(sides, np.float64), (means - spread, means + spread)
            lines.append(Line(_marked(row, alike), x, means, *band, _colour(row, colours)))
    if not lines:
        return None
    title, above = "Figure 4: inference resolution", f"the {sides[0]} pixels of training"
    caption = f"By how much the mean AbsRel rises when images are larger than {above}."
    caption += _legend(alike)
    labels = ("side of the images in pixels", "change of AbsRel in percent")
    return line_chart("resolution", title, caption, lines, *labels, ticks=sides, zero=True)


def cost_chart(sweep: SweepResults, colours: Colours) -> Chart | None:
    """Mean AbsRel over parameters of the backbones of a `sweep` that have both; None of fewer than two.

    Variants are drawn in their `colours`.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    errors: dict[str, dict[int, float]] = {}
    drawn: dict[str, str] = {}
    for trial in sweep.trials:
        size, error = trial.metrics.get(records.PARAMETERS), trial.metrics.get(_MEAN)
        if BACKBONE.name in trial.rows and trial.counts and size is not None and error is not None:
            points.setdefault(trial.rows[BACKBONE.name], []).append((size, error))
            errors.setdefault(trial.rows[BACKBONE.name], {})[trial.seed] = error
            drawn[trial.rows[BACKBONE.name]] = colours[trial.variant]
    if len(points) < 2:
        return None
    means = {title: tuple(np.mean(found, axis=0)) for title, found in points.items()}
    caption = "Mean AbsRel over seeds against parameters: lower left is better."
    labels, hollow = ("million parameters", "mean AbsRel"), indistinct(errors)
    caption += f" Hollow: {UNCLEAR}." if hollow else ""
    return scatter_chart("cost", "Accuracy and size", caption, means, drawn, hollow, *labels)


def _marked(row: RowResults, alike: AbstractSet[str]) -> str:
    return f"{ALIKE} {row.title}" if row.title in alike else row.title


def _legend(alike: AbstractSet[str]) -> str:
    return f" {ALIKE}: {UNCLEAR}." if alike else ""


def _colour(row: RowResults, colours: Colours) -> str:
    """The colour of a row's variant; of one without trials, which has nothing to draw, any."""
    return colours[row.trials[0].variant] if row.trials else SERIES[0]


def _curve(row: RowResults, metric: str, colours: Colours, alike: AbstractSet[str]) -> Line | None:
    """Mean, lowest and highest value over seeds, at the steps that all of them have."""
    curves = [history(trial, metric) for trial in row.trials if trial.counts and metric in trial.metrics]
    steps = sorted(set.intersection(*(set(found.tolist()) for found, _ in curves))) if curves else []
    if not steps:
        return None
    values = np.stack([found[np.isin(at, steps)] for at, found in curves])
    parts = np.array_split(np.arange(len(steps)), min(len(steps), _POINTS))
    x = np.array([np.array(steps, np.float64)[part].mean() for part in parts])
    means = np.stack([values[:, part].mean(axis=1) for part in parts], axis=1)
    return Line(_marked(row, alike), x, means.mean(0), means.min(0), means.max(0), _colour(row, colours))
