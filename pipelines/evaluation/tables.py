"""Tables for the terminal: metric depth and segmentation beside the paper's Tables 2 to 5; IoU per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dpt.class_names import class_names
from dpt.metrics import SegmentationCounts
from dpt.predict.colours import class_colours
from pipelines.evaluation.metric_depth import METRICS
from pipelines.evaluation.official_splits import of_how_many
from pipelines.evaluation.sets import OFFICIAL, SEGMENTED
from pipelines.plain_tables import comma_separated

_EXTREMES = 5
_INCHES_A_CLASS, _HEIGHT_INCHES, _DPI = 0.16, 5.0, 100
_CAPTION = "δₖ: pixels with max(p/t, t/p) < 1.25ᵏ, larger is better (headed δ > 1.25 in the paper)"


# ---- depth in metres


def metric_table(dataset: str, split: str, metrics: Mapping[str, float]) -> Table:
    """All `metrics` of a `split` of a prepared `dataset`, below the paper's rows where it has any."""
    images = of_how_many(dataset, split, metrics["images"])
    if metrics["empty_images"]:
        images += f" ({metrics['empty_images']:.0f} without ground truth)"
    paper = OFFICIAL[dataset].table if dataset in OFFICIAL else None
    title = f"{dataset}, {split}: images: {images}"
    title = f"{title}; Table {paper.number} of the paper" if paper else title
    # Ten columns have to fit into a terminal of eighty.
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=_CAPTION)
    table.add_column("", no_wrap=True)
    for heading in METRICS.values():
        table.add_column(heading, justify="right")
    if paper:
        for row in paper.rows:
            printed = {c.metric: c.text(value) for c, value in zip(paper.columns, row.values, strict=True)}
            table.add_row(row.name, *(printed.get(metric, "") for metric in METRICS))
        table.add_section()
    table.add_row("this model", *(f"{metrics[metric]:.3f}" for metric in METRICS))
    return table


# ---- segmentation


def summary_table(counts: dict[str, SegmentationCounts], missing: dict[str, int]) -> Table:
    """A row per dataset: metrics from its `counts`, and the number of its `missing` samples."""
    table = Table("dataset", "pixAcc [%]", "mIoU [%]", "classes that occur", "images")
    for name, count in counts.items():
        result, absent = count.result(), missing[name]
        images = f"{count.images:,}" + (f" of {count.images + absent:,}" if absent else "")
        classes = f"{result['classes']:.0f} of {len(count.confusion)}"
        table.add_row(name, _percent(result["pix_acc"]), _percent(result["miou"]), classes, images)
    return table


def paper_table(dataset: str, counts: SegmentationCounts) -> Table | None:
    """The paper's table of a `dataset` with a last row of our `counts`; None where the paper has none."""
    if dataset not in SEGMENTED:
        return None
    paper, result = SEGMENTED[dataset].table, counts.result()
    headings = [column.label for column in paper.columns]
    table = Table("", "backbone", *headings, title=f"Table {paper.number}: {paper.title}")
    for row in paper.rows:
        values = (c.text(value) for c, value in zip(paper.columns, row.values, strict=True))
        table.add_row(row.method, row.setting, *values)
    table.add_section()
    own = "ours" if counts.images == SEGMENTED[dataset].images else f"ours, on {counts.images:,} images"
    table.add_row(own, "", *(c.text(c.unit * result[c.metric]) for c in paper.columns))
    return table


def extremes_table(dataset: str, counts: SegmentationCounts) -> Table:
    """The classes of `dataset` with the highest and the lowest IoU in `counts`."""
    names, iou, order = _by_iou(dataset, counts)
    middle = len(order) > 2 * _EXTREMES
    table = Table("class", "IoU [%]", title=f"classes of {dataset}")
    for place, index in enumerate(order):
        if middle and _EXTREMES <= place < len(order) - _EXTREMES:
            continue
        if middle and place == len(order) - _EXTREMES:
            table.add_row("…", "…")
        table.add_row(names[index], _percent(iou[index]))
    return table


def class_csv(dataset: str, counts: SegmentationCounts) -> str:
    """CSV of `counts`, a line per class of `dataset`: number, name, IoU in [0, 1] (empty if it never occurs),
    labelled pixels, predicted pixels, correct pixels."""
    rows: list[Sequence[object]] = [
        ("class", "name", "iou", "labelled_pixels", "predicted_pixels", "right_pixels")
    ]
    confusion = counts.confusion
    columns = (counts.class_iou(), confusion.sum(dim=1), confusion.sum(dim=0), confusion.diagonal())
    for number, name in enumerate(class_names(dataset)):
        iou, *pixels = (column[number].item() for column in columns)
        rows.append((number, name, "" if np.isnan(iou) else f"{iou:.6f}", *pixels))
    return comma_separated(rows)


def class_figure(dataset: str, counts: SegmentationCounts) -> NDArray[np.uint8]:
    """Bars of the IoU in `counts` of every class of `dataset` that occurs, highest first (Figure A2).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    names, iou, order = _by_iou(dataset, counts)
    width = 2.0 + _INCHES_A_CLASS * max(len(order), 20)
    figure = Figure(figsize=(width, _HEIGHT_INCHES), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = np.arange(len(order))
    axes.bar(places, 100 * iou[order], width=0.8, color=class_colours()[order] / 255, edgecolor="0.3", lw=0.4)
    axes.set_xticks(places, [names[index] for index in order], rotation=90, fontsize=8)
    axes.set_xlim(-0.7, max(len(order), 1) - 0.3)
    axes.set_ylim(0, 100)
    axes.set_ylabel("IoU [%]")
    mean = counts.result()["miou"]
    axes.axhline(100 * mean, color="0.2", lw=0.8, ls="--")
    axes.set_title(f"{dataset}: IoU a class, mean {_percent(mean)} % (dashed)", fontsize=10, parse_math=False)
    axes.grid(axis="y", color="0.85", lw=0.5)
    axes.set_axisbelow(True)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _by_iou(
    dataset: str, counts: SegmentationCounts
) -> tuple[tuple[str, ...], NDArray[np.float64], list[int]]:
    """Class names, IoU of each class, and the classes that occur from the highest IoU to the lowest."""
    iou = counts.class_iou().numpy()
    order = [int(index) for index in np.argsort(-iou, kind="stable") if not np.isnan(iou[index])]
    return class_names(dataset), iou, order


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
