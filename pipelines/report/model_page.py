"""`dpt report MODEL`: what was measured of a model beside the paper's figures, and what it does: one page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path

import numpy as np

import dpt
from datasets_prep.inspect.html import document, header, section, write_document
from datasets_prep.manifest import PreparedDataset, open_datasets
from pipelines.cluster.session import resolve_device
from pipelines.evaluation import paper_tables
from pipelines.report import blocks as page
from pipelines.report.charts import Line, line_chart
from pipelines.report.pictures import (
    Shown,
    attention_of,
    by_resolution,
    labelled_samples_of,
    miou_by_resolution,
    samples_of,
    show,
    show_classes,
)
from pipelines.report.table import Cell, Column, Table
from pipelines.tracking.model_reference import load_model
from pipelines.tracking.registry import Measurement, measurements_of

_TABLES = (
    paper_tables.TABLE_1,
    paper_tables.TABLE_2,
    paper_tables.TABLE_3,
    paper_tables.TABLE_4,
    paper_tables.TABLE_5,
)
_NO_METRICS = {"images", "empty_images", "pixels"}


def write_model_report(
    reference: str, out: Path, data: Sequence[str] = (), images: int = 4, split: str | None = None
) -> Path:
    """Write the page of a model, and its charts as files; returns the page's path.

    Args:
        reference: of a model, as `pipelines.tracking.model_reference.load_model` takes it.
        data: prepared datasets with depth maps, or with labels for a segmentation model, or folders of them,
            to show predictions of.
        images: how many images of each.
        split: of these datasets; by default what is not trained on.

    Raises:
        TrackingError, NotFound, BadModel, NotADataset: if there is no such model, or data.
    """
    network = load_model(reference).to(resolve_device("auto")).eval()
    sections = {"measured": ("Measured", _measured(measurements_of(reference), reference))}
    if data:
        sections |= _what_it_does(network, open_datasets(list(data)), images, split, out)
    links = {anchor: title for anchor, (title, _) in sections.items()}
    # Of a local path the last part is title enough; the whole one stands below it.
    title = Path(reference).name if Path(reference).exists() else reference
    lead = escape(_kind(network)) + ("" if title == reference else f"<br/><code>{escape(reference)}</code>")
    top = header("A dense prediction transformer", title, lead, links)
    body = "\n".join(section(anchor, title, text) for anchor, (title, text) in sections.items())
    foot = f"<footer><p>Written on {datetime.now(timezone.utc):%d %B %Y}.</p></footer>"
    tiles = page.tiles(_tiles(network))
    text = document(f"Model: {title}", f"{top}\n{tiles}\n<main>{body}</main>\n{foot}")
    return write_document(out / "report.html", text)


_DEPTH_PICTURES = (
    "<p>Predictions are aligned to the ground truth by scale and shift, image by image; bright is near. "
    "Where there is no ground truth, or it is farther than the cap, ground truth and error are black.</p>"
)
_SEGMENTATION_PICTURES = "<p>Whole images in one pass; what has no label is black, and counts nowhere.</p>"


def _kind(network: dpt.DPT) -> str:
    what = {"depth": "predicts depth", "segmentation": "labels every pixel"}[network.config.task]
    return f"{network.config.backbone}; {'predicts metres' if network.config.metric else what}."


def _tiles(network: dpt.DPT) -> list[tuple[str, str, str]]:
    config = network.config
    parameters = sum(parameter.numel() for parameter in network.parameters())
    taps = ", ".join(map(str, config.taps))
    return [
        ("Parameters", f"{parameters / 1e6:.1f} million", ""),
        ("Input", f"{config.image_size} px", config.resize_rule.replace("_", " ")),
        ("Taps", taps, f"readout: {config.readout}"),
    ]


# ---- what was measured


def _measured(measurements: Sequence[Measurement], reference: str) -> str:
    ours = {key: value for found in reversed(measurements) for key, value in found.metrics.items()}
    if not ours:
        return (
            "<p>MLflow knows of no evaluation of this model yet: "
            f"<code>dpt evaluate --model {escape(reference)} …</code> makes one.</p>"
        )
    tables = [table for known in _TABLES if (table := beside_the_paper(known, ours))]
    return "\n".join(table.html() for table in [*tables, _all(ours)])


def beside_the_paper(known: paper_tables.Table, ours: dict[str, float]) -> Table | None:
    """A table of the paper with a row of ours below; None if none of its columns was measured."""
    keys = [f"{column.metric}/{column.dataset}" for column in known.columns]
    if not any(key in ours for key in keys):
        return None
    columns = [Column("model", text=True)]
    columns += [Column(column.label, column.heading) for column in known.columns]
    values = [
        ours[key] * column.unit if key in ours else None
        for key, column in zip(keys, known.columns, strict=True)
    ]
    rows: list[tuple[str, Sequence[float | None]]] = [("this model", values)]
    rows += [(row.name, row.values) for row in known.rows]
    table = Table(f"Table {known.number}: {known.title}, beside the paper's", columns)
    best = [
        _best([row[index] for _, row in rows], column.lower_is_better)
        for index, column in enumerate(known.columns)
    ]
    for name, row in rows:
        cells = [
            Cell.absent() if value is None else Cell(column.text(value), value, best=value == top)
            for value, column, top in zip(row, known.columns, best, strict=True)
        ]
        table.rows.append([Cell.of(name), *cells])
    return table


def _best(values: Sequence[float | None], lower_is_better: bool) -> float | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    return min(there) if lower_is_better else max(there)


def _all(ours: dict[str, float]) -> Table:
    """Every metric that has a dataset's name, a dataset a row."""
    pairs = {tuple(key.split("/", 1)): value for key, value in ours.items()}
    datasets = sorted({dataset for _, dataset in pairs}, key=lambda name: (name == "mean", name))
    metrics = sorted({metric for metric, _ in pairs} - _NO_METRICS)
    table = Table("All measurements", [Column("dataset", text=True), *(Column(name) for name in metrics)])
    for dataset in datasets:
        values = [pairs.get((metric, dataset)) for metric in metrics]
        cells = [Cell.absent() if value is None else Cell(f"{value:.4f}", value) for value in values]
        table.rows.append([Cell.of(dataset), *cells])
    return table


# ---- what it does


def _what_it_does(
    network: dpt.DPT, datasets: Sequence[PreparedDataset], images: int, split: str | None, out: Path
) -> dict[str, tuple[str, str]]:
    """Anchor → title and text of sections."""
    if network.config.task == "segmentation":
        labelled = labelled_samples_of(network, datasets, images, split)
        text, shown = _SEGMENTATION_PICTURES, [show_classes(network, sample) for sample in labelled]
        metric, unit, found = "mIoU", "points", miou_by_resolution(network, labelled)
        change = {side: 100 * (value - found[min(found)]) for side, value in found.items()}
    else:
        samples = samples_of(datasets, images, split)
        text, shown = _DEPTH_PICTURES, [show(network, sample) for sample in samples]
        metric, unit, found = "mean AbsRel", "percent", by_resolution(network, samples)
        change = {side: 100 * (value / found[min(found)] - 1) for side, value in found.items()}
    return {
        "predictions": ("Predictions", text + _figures(shown)),
        "attention": ("Attention", _attention(network, shown[0])),
        "resolution": ("Inference resolution", _resolution(metric, found, change, unit, out)),
    }


def _figures(shown: Sequence[Shown]) -> str:
    return "".join(
        f"<h3>{escape(one.name)}, {', '.join(f'{name} {value:.4f}' for name, value in one.metrics.items())}"
        f"</h3>{page.picture_grid(one.pictures.items())}"
        for one in shown
    )


def _attention(network: dpt.DPT, shown: Shown) -> str:
    picture = attention_of(network, shown.pictures["image"])
    if picture is None:
        return f"<p>{escape(network.config.backbone)} has no tokens that attend to each other.</p>"
    text = (
        "<p>Where the marked tokens attend to in the tapped layers, averaged over heads; as in Figures A4 "
        "and A5 of the supplement.</p>"
    )
    return text + page.wide_picture(picture, shown.name)


def _resolution(metric: str, found: dict[int, float], change: dict[int, float], unit: str, out: Path) -> str:
    """Chart and table of a metric by the side of the network's input, and its change from the smallest on."""
    sides = list(found)
    chart = line_chart(
        "resolution",
        "Larger images than in training",
        f"Change of the {metric} of the images above, from {min(sides)} pixels on.",
        [Line("this model", np.array(sides, np.float64), np.array(list(change.values())))],
        "side of the images in pixels",
        f"change of the {metric} in {unit}",
        ticks=sides,
        zero=True,
    )
    chart.write(out / "charts")
    columns = [Column(title) for title in ("side", metric, f"change, {unit}")]
    table = Table(f"The {metric} by side of the network's input", columns)
    for side, value in found.items():
        cells = (
            Cell(f"{side} px", side),
            Cell(f"{value:.4f}", value),
            Cell(f"{change[side]:+.1f}", change[side]),
        )
        table.rows.append(list(cells))
    return page.charts([chart]) + table.html()
