"""What is said of a segmentation model: the paper's tables with our row, and every class by itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dpt.class_names import class_names
from dpt.metrics import SegmentationCounts
from dpt.predict.colours import class_colours
from pipelines.evaluation.metric_protocol import METRICS
from pipelines.evaluation.official_splits import of_how_many
from pipelines.evaluation.paper_tables import TABLE_2, TABLE_3, TABLE_4, TABLE_5

OFFICIAL_IMAGES = {"ade20k": 2000, "pascal_context_59": 5105}
"""Images of the validation sets that Tables 4 and 5 are about."""

_TABLES = {"ade20k": TABLE_4, "pascal_context_59": TABLE_5}
_EXTREMES = 5
_INCHES_A_CLASS, _HEIGHT_INCHES, _DPI = 0.16, 5.0, 100


def summary_table(counts: dict[str, SegmentationCounts], missing: dict[str, int]) -> Table:
    """A row a dataset.

    Args:
        counts: dataset → its pixels.
        missing: dataset → how many of its samples were left out.
    """
    table = Table("dataset", "pixAcc [%]", "mIoU [%]", "classes that occur", "images")
    for name, count in counts.items():
        result, absent = count.result(), missing[name]
        images = f"{count.images:,}" + (f" of {count.images + absent:,}" if absent else "")
        classes = f"{result['classes']:.0f} of {len(count.confusion)}"
        table.add_row(name, _percent(result["pix_acc"]), _percent(result["miou"]), classes, images)
    return table


def paper_table(dataset: str, counts: SegmentationCounts) -> Table | None:
    """The paper's table of a dataset, our row last; None where the paper has none."""
    if dataset not in _TABLES:
        return None
    paper, result = _TABLES[dataset], counts.result()
    headings = [column.label for column in paper.columns]
    table = Table("", "backbone", *headings, title=f"Table {paper.number}: {paper.title}")
    for row in paper.rows:
        values = (c.text(value) for c, value in zip(paper.columns, row.values, strict=True))
        table.add_row(row.method, row.setting, *values)
    table.add_section()
    own = "ours" if counts.images == OFFICIAL_IMAGES[dataset] else f"ours, on {counts.images:,} images"
    table.add_row(own, "", *(c.text(c.unit * result[c.metric]) for c in paper.columns))
    return table


def extremes_table(dataset: str, counts: SegmentationCounts) -> Table:
    """The classes with the highest and the lowest IoU."""
    names, iou = class_names(dataset), counts.class_iou().numpy()
    order = [index for index in np.argsort(-iou, kind="stable") if not np.isnan(iou[index])]
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
    """Every class by itself: number, name, IoU in [0, 1] (empty if it never occurs), labelled and predicted
    pixels, and those that are right."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "name", "iou", "labelled_pixels", "predicted_pixels", "right_pixels"))
    confusion = counts.confusion
    columns = (counts.class_iou(), confusion.sum(dim=1), confusion.sum(dim=0), confusion.diagonal())
    for number, name in enumerate(class_names(dataset)):
        iou, *pixels = (column[number].item() for column in columns)
        writer.writerow((number, name, "" if np.isnan(iou) else f"{iou:.6f}", *pixels))
    return text.getvalue()


def class_figure(dataset: str, counts: SegmentationCounts) -> NDArray[np.uint8]:
    """IoU of every class that occurs as bars, the highest first (Figure A2): (H, W, 3) uint8 RGB."""
    iou = counts.class_iou().numpy()
    order = [index for index in np.argsort(-iou, kind="stable") if not np.isnan(iou[index])]
    names = class_names(dataset)
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
    axes.set_title(f"{dataset}: IoU a class, mean {_percent(mean)} % (dashed)", fontsize=10)
    axes.grid(axis="y", color="0.85", lw=0.5)
    axes.set_axisbelow(True)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


_CAPTION = "δₖ: pixels with max(p/t, t/p) < 1.25ᵏ, larger is better (headed δ > 1.25 in the paper)"


_PAPER = {"nyuv2": TABLE_2, "kitti": TABLE_3}


def metric_table(dataset: str, split: str, metrics: Mapping[str, float]) -> Table:
    """All metrics of a dataset; those that the paper prints have its rows above."""
    images = of_how_many(dataset, split, metrics["images"])
    if metrics["empty_images"]:
        images += f" ({metrics['empty_images']:.0f} without ground truth)"
    paper = _PAPER.get(dataset)
    title = f"{dataset}, {split}: images: {images}"
    # Ten columns have to fit into a terminal of eighty.
    table = Table(
        title=f"{title}; Table {paper.number} of the paper" if paper else title,
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=_CAPTION,
    )
    table.add_column("", no_wrap=True)
    for heading in METRICS.values():
        table.add_column(heading, justify="right")
    if paper:
        places = {column.metric: index for index, column in enumerate(paper.columns)}
        for row in paper.rows:
            table.add_row(
                row.name, *(_printed(row.values[places[m]]) if m in places else "" for m in METRICS)
            )
        table.add_section()
    table.add_row("this model", *(f"{metrics[metric]:.3f}" for metric in METRICS))
    return table


def _printed(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
