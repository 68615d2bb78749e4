"""Tables and charts of a sweep: what may be chance is marked, and a variant keeps its colour."""

import re
import statistics
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.axes import Axes

from tune import records
from tune.ablations import PAPER
from tune.report import charts as module
from tune.report.charts import charts_of, cost_chart, resolution_chart, variant_colours
from tune.report.comparison import tables_of
from tune.report.results import SweepResults, Trial
from tune.report.tables import accuracy_table, resolution_table

TABLES = ("skip", "readout", "backbone", "resolution")
SHARED = {"Base {3, 6, 9, 12}": "Ignore", "ViT-Base": "Project"}
"""Rows of one table that are the same variant as one of another."""

WORSE = {"ResNet50", "Add"}
MEAN_MAP = 0.25


def error(variant: str, seed: int) -> float:
    """All rows are alike up to chance of 0.001, but two that are worse by 0.01."""
    chance = float(np.random.default_rng([seed, *variant.encode()]).normal(0, 0.001))
    return 0.08 + chance + (0.01 if variant in WORSE else 0)


def trial(variant: str, rows: dict[str, str], seed: int) -> Trial:
    metrics = {records.abs_rel(name): error(variant, seed) for name in ("redweb", records.MEAN)}
    metrics |= {records.mean_map(name): MEAN_MAP for name in ("redweb", records.MEAN)}
    metrics |= {"loss": 0.1, records.PARAMETERS: 50.0 + len(variant)}
    sides = {384: 1.0, 512: 1 + 10 * (error(variant, seed + 10) - 0.08)}
    metrics |= {records.abs_rel_at(s, records.MEAN): f * error(variant, seed) for s, f in sides.items()}
    return Trial("id", variant, seed, rows, "FINISHED", None, metrics, {}, {}, ())


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> SweepResults:
    steps = np.array([100.0, 200.0])
    monkeypatch.setattr(module, "history", lambda one, metric: (steps, one.metrics[metric] / steps))
    rows: dict[str, dict[str, str]] = {}
    for table in TABLES:
        for row in PAPER[table].rows:
            rows.setdefault(SHARED.get(row.title, row.title), {})[table] = row.title
    trials = tuple(trial(variant, titles, seed) for variant, titles in rows.items() for seed in range(4))
    return SweepResults("s", "id", 0, {}, {}, trials)


def drawn(sweep: SweepResults) -> Iterator[tuple[str, str, Axes]]:
    """Table, name and axes of each chart."""
    colours = variant_colours(sweep)
    for results in tables_of(sweep):
        name = results.table.name
        found = [resolution_chart(results, colours)] if name == "resolution" else charts_of(results, colours)
        yield from ((name, chart.name, chart.figure.axes[0]) for chart in found if chart)
    cost = cost_chart(sweep, colours)
    assert cost is not None
    yield "backbone", cost.name, cost.figure.axes[0]


def dots(axes: Axes) -> dict[str, tuple[str, bool]]:
    """Row of a dot chart → colour of our dot, and whether it is filled."""
    names = dict(zip(axes.get_yticks(), (t.get_text() for t in axes.get_yticklabels()), strict=True))
    ours = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_ydata())]
    return {names[d.get_ydata()[0]]: (d.get_color(), d.get_markerfacecolor() == d.get_color()) for d in ours}


def test_what_may_be_chance_is_marked(sweep):
    texts = {}
    for table, name, axes in drawn(sweep):
        labels = [text.get_text() for text in axes.texts]
        texts[name] = {label.removeprefix("≈ "): label.startswith("≈") for label in labels}
        if name.endswith("_mean"):
            texts[name] = {title: not filled for title, (_, filled) in dots(axes).items()}
        assert set(texts[name]) == {row.title for row in PAPER[table].rows}, name
    for results in tables_of(sweep):
        name, titles = results.table.name, [row.title for row in results.rows]
        if name == "resolution":
            continue
        means = {t: statistics.fmean(error(SHARED.get(t, t), s) for s in range(4)) for t in titles}
        expected = {t: t not in {min(means, key=means.__getitem__), *WORSE} for t in titles}
        assert texts[f"{name}_mean"] == texts[f"{name}_validation"] == expected
        assert not any(texts[f"{name}_loss"].values()), "losses are not compared"
        table = accuracy_table(results)
        assert "≈: not significantly different from the best (paired t-test over seeds" in table.title
        ours = next(i for i, c in enumerate(table.columns) if (c.group, c.title) == ("Mean", "ours"))
        assert {row[0].text: row[ours].text.startswith("≈") for row in table.rows[:-1]} == expected
        assert [cell.text for cell in table.rows[-1]][:: len(table.columns) - 1] == [
            "mean map",
            "\N{EN DASH}",
        ]
        assert table.rows[-1][ours].text == f"{MEAN_MAP:.4f}"


def test_changes_with_resolution_that_may_be_chance_are_marked(sweep):
    [results] = [found for found in tables_of(sweep) if found.table.name == "resolution"]
    table = resolution_table(results)
    marked = {row[0].text for row in table.rows if row[2].text.startswith("≈")}
    assert marked
    assert not any(row[2].best for row in table.rows if row[0].text in marked)
    [axes] = [axes for _, name, axes in drawn(sweep) if name == "resolution"]
    assert {t.get_text()[2:] for t in axes.texts if t.get_text().startswith("≈")} == marked


def test_a_variant_has_one_colour_in_every_chart(sweep):
    seen: dict[str, set[str]] = {}
    for _, name, axes in drawn(sweep):
        found = {text.get_text().removeprefix("≈ "): text.get_color() for text in axes.texts}
        found |= {title: colour for title, (colour, _) in dots(axes).items()} if "mean" in name else {}
        for title, colour in found.items():
            seen.setdefault(SHARED.get(title, title), set()).add(colour)
    assert [len(colours) for colours in seen.values()] == [1] * len(seen)
    assert len(set.union(*seen.values())) == 8


def test_lines_of_one_colour_differ_in_their_dashes():
    x = np.arange(20.0)
    lines = [module.Line(name, x, x, colour=module.SERIES[0]) for name in "abc"]
    svg = module.line_chart("n", "t", "c", lines, "x", "y").html()
    assert len(set(re.findall(r"stroke-dasharray: [^;\"]*", svg))) == 2
