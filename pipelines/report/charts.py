"""Line and dot charts in an HTML page's colours, light or dark, and as PNG and SVG files.

Matplotlib draws each once, in placeholder colours that become the page's CSS variables. Lines are labelled at
their ends instead of in a legend.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from datasets_prep.storage.writing import writing_file

INK, MUTED, LINE = "#1c1d1f", "#62656a", "#e3e0d8"
SERIES = ("#2b6cb8", "#d1621f", "#1f8a63", "#a8449a", "#a8810c", "#5b57c2", "#b23a48", "#4f7d8c")
_BACKGROUND = "#ffffff"
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", _BACKGROUND: "--raised"}
_VARIABLES |= {colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)}
"""Placeholder colour → variable of `datasets_prep/inspect/html.css`."""

_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.4)))

_WIDTH, _HEIGHT, _FONT = 4.7, 3.2, 9.5
_PNG_DPI = 200
_DOT: dict[str, Any] = {"marker": "o", "markersize": 7, "markeredgewidth": 1.6, "linestyle": "none"}
_HOLLOW: dict[str, Any] = _DOT | {"markerfacecolor": _BACKGROUND}
_REFERENCE: dict[str, Any] = _HOLLOW | {"marker": "D", "markersize": 6, "color": MUTED}
_LABEL_GAP = 11.5
"""Minimum distance between two labels, in points."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart, with the label `name` at its end.

    Attributes:
        x: (N,), in order.
        y: (N,); points that are not finite are left out.
        low, high: (N,) ends of a band around the line; None for no band.
        colour: one of `SERIES`; of lines of one colour the second is dashed, the third dotted.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    colour: str = SERIES[0]


@dataclass(frozen=True, slots=True)
class Dots:
    """The row `name` of a dot chart: our `value` and the paper's, the `reference`; None if missing.

    `deviation` is half the length of our value's error bar; None for no bar. The dot has the
    `colour`, and is filled if `clear`: it is the best, or differs from it significantly.
    """

    name: str
    value: float | None
    deviation: float | None
    reference: float | None
    colour: str
    clear: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart, as a `figure` of Matplotlib.

    `name` is the stem of its files, `title` its heading in the page, `caption` plain text.
    """

    name: str
    title: str
    caption: str
    figure: Figure

    def html(self) -> str:
        """A <figure> with the chart as SVG in the page's colours."""
        title, caption = escape(self.title), escape(self.caption)
        attributes = f'class="chart" role="img" aria-label="{title}. {caption}"'
        svg = _in_page_colours(self._drawn("svg").decode("utf-8"), attributes)
        return f"<figure><h3>{title}</h3>{svg}<figcaption>{caption}</figcaption></figure>"

    def write(self, folder: Path) -> list[Path]:
        """Write `name`.svg and `name`.png to a `folder`; returns their paths."""
        paths = [folder / f"{self.name}.{form}" for form in ("svg", "png")]
        for path in paths:
            with writing_file(path) as partial:
                partial.write_bytes(self._drawn(path.suffix[1:]))
        return paths

    def _drawn(self, form: str) -> bytes:
        buffer = io.BytesIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if form == "svg" else None
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format=form, dpi=_PNG_DPI, metadata=metadata)
        return buffer.getvalue()


def line_chart(
    name: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    ticks: Sequence[float] | None = None,
    zero: bool = False,
) -> Chart:
    """`lines` over x, each labelled at its end.

    `name`, `title` and `caption` are as in `Chart`, `x_label` and `y_label` those of the axes, `ticks` the
    marked values of x, by default Matplotlib's. With `zero` there is a line at y = 0.
    """
    figure, axes = _axes(_WIDTH, _HEIGHT)
    if zero:
        axes.axhline(0, color=MUTED, linewidth=0.8)
    ends = []
    dashes = {colour: cycle(_DASHES) for colour in SERIES}
    for line in lines:
        seen = np.isfinite(line.y)
        x, y = line.x[seen], line.y[seen]
        if not x.size:
            continue
        if line.low is not None and line.high is not None:
            axes.fill_between(x, line.low[seen], line.high[seen], color=line.colour, alpha=0.14, linewidth=0)
        marker, dash = "o" if x.size < 12 else "", next(dashes[line.colour])
        axes.plot(x, y, color=line.colour, marker=marker, linestyle=dash)
        ends.append((float(x[-1]), float(y[-1]), line.name, line.colour))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if ticks is not None:
        axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    _label_ends(figure, axes, ends)
    return Chart(name, title, caption, figure)


def dot_chart(
    name: str, title: str, caption: str, rows: Sequence[Dots], x_label: str, names: tuple[str, str, str]
) -> Chart:
    """Rows, from the top, of a dot with an error bar, for our value, and a diamond, for the reference.

    `name`, `title` and `caption` are as in `Chart`; `x_label` is that of the x axis; `names` are those of
    filled dots, hollow dots and diamonds, for the legend of those that there are.
    """
    figure, axes = _axes(_WIDTH, max(1.0 + 0.3 * len(rows), 0.7 * _HEIGHT))
    heights = range(len(rows), 0, -1)
    for height, row in zip(heights, rows, strict=True):
        if row.value is not None and row.reference is not None:
            axes.plot([row.value, row.reference], [height] * 2, color=LINE, linewidth=2.5, zorder=1)
        if row.reference is not None:
            axes.plot(row.reference, height, **_REFERENCE)
        if row.value is not None:
            marks = _DOT if row.clear else _HOLLOW
            axes.errorbar(row.value, height, xerr=row.deviation, color=row.colour, elinewidth=1.3, **marks)
    axes.set_yticks(list(heights), [row.name for row in rows], color=INK, parse_math=False)
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=LINE, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set_xlabel(x_label)
    measured = [row for row in rows if row.value is not None]
    present = [any(row.clear for row in measured), not all(row.clear for row in measured)]
    present += [any(row.reference is not None for row in rows)]
    for label, marks, shown in zip(names, (_DOT, _HOLLOW, _REFERENCE), present, strict=True):
        if shown:
            axes.plot([], [], label=label, **{"color": MUTED, **marks})
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, labelcolor=MUTED, handletextpad=0.2
    )
    return Chart(name, title, caption, figure)


def scatter_chart(
    name: str,
    title: str,
    caption: str,
    points: Mapping[str, tuple[float, float]],
    colours: Mapping[str, str],
    hollow: AbstractSet[str],
    x_label: str,
    y_label: str,
) -> Chart:
    """A labelled dot for each of the `points`, label → (x, y), in its colour of `colours`.

    Those in `hollow` are not filled. `name`, `title` and `caption` are as in `Chart`, `x_label` and `y_label`
    those of the axes.
    """
    figure, axes = _axes(_WIDTH, _HEIGHT)
    for label, point in points.items():
        colour = colours[label]
        axes.plot(*point, color=colour, **(_HOLLOW if label in hollow else _DOT))
        _label(axes, label, point, (0, 7), color=colour, ha="center", va="bottom")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.margins(x=0.25, y=0.15)
    return Chart(name, title, caption, figure)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    style: dict[Any, Any] = {"font.size": _FONT, "font.family": "sans-serif", "text.color": INK}
    style |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), MUTED)
    style |= {"axes.facecolor": "none", "axes.linewidth": 0.8, "lines.linewidth": 1.8}
    style |= {"lines.markersize": 4.5, "xtick.major.size": 3, "ytick.major.size": 0}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), facecolor=_BACKGROUND, layout="constrained")
        axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(visible=True, axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Colour of each of `names`, in their order; after the last colour the first again."""
    return dict(zip(dict.fromkeys(names), cycle(SERIES), strict=False))


def _label_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write labels right of the lines' ends, moved apart where they would overlap."""
    if not ends:
        return
    figure.draw_without_rendering()
    to_points = 72 / figure.dpi
    places = [axes.transData.transform((x, y)) * to_points for x, y, _, _ in ends]
    right = max(place[0] for place in places)
    box = axes.get_window_extent()
    bottom, top = box.y0 * to_points + _FONT / 2, box.y1 * to_points
    heights = _apart([float(place[1]) for place in places], bottom, top)
    for (x, y, name, colour), place, height in zip(ends, places, heights, strict=True):
        offset = (right - place[0] + 7, height - place[1])
        _label(axes, name, (x, y), offset, color=colour, fontsize=_FONT, va="center", annotation_clip=False)


def _label(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    """Write a text beside a point, `offset` points to the right and above."""
    style |= {"parse_math": False, "textcoords": "offset points"}
    axes.annotate(text, point, xytext=offset, **style)


def _apart(wanted: Sequence[float], bottom: float, top: float) -> list[float]:
    """Heights nearest to `wanted` (least squares), in the same order, at least `_LABEL_GAP` apart.

    They start above `bottom`, and end below `top` as far as there is room.
    """
    order = np.argsort(wanted, kind="stable")
    # Pool adjacent violators: less the gaps below it, a label wants the height w - rank · gap, and these must
    # not decrease. Blocks that would are merged at their mean, so that their labels touch: with a gap of 12,
    # wanted heights 50, 50 are 50, 38 → both at 44 → drawn at 44 and 56.
    blocks: list[list[float]] = []
    for rank, index in enumerate(order):
        blocks.append([wanted[index] - rank * _LABEL_GAP])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = np.array([np.mean(block) for block in blocks for _ in block])
    placed = np.maximum(np.minimum(placed, top - (len(wanted) - 1) * _LABEL_GAP), bottom)
    heights = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        heights[index] = float(placed[rank]) + rank * _LABEL_GAP
    return heights


def _in_page_colours(svg: str, attributes: str) -> str:
    """Matplotlib's SVG file → an <svg> for the page, with its CSS variables as colours and in its font."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", lambda found: f"<svg {attributes} {found[1]}>", svg, count=1
    )
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg).replace("xlink:href", "href")
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    pattern = re.compile("|".join(_VARIABLES))
    return pattern.sub(lambda found: f"var({_VARIABLES[found[0]]})", svg)
