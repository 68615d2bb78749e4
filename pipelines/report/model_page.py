"""`dpt report MODEL`: one page with a model's metrics beside the paper's, and a few predictions."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path

import numpy as np

import dpt
from datasets_prep.inspect.html import header, write_document
from datasets_prep.manifest import PreparedDataset, open_datasets
from dpt.layers.late_compiler import shapes_only
from pipelines.cluster.device import resolve_device
from pipelines.evaluation.paper_tables import TABLES, PaperTable, Row
from pipelines.evaluation.sets import set_of
from pipelines.report import blocks
from pipelines.report.charts import Line, line_chart
from pipelines.report.pictures import Shown, attention_of, by_resolution, samples_of, show
from pipelines.report.table import Cell, Column, NumberTable
from pipelines.tracking.metric_keys import MEAN, MEAN_MAP, RELATIVE, SKILL, MetricKey
from pipelines.tracking.model_reference import load_model
from pipelines.tracking.registry import Measurement, measurements_of

_NO_METRICS = {"images", "empty_images", "pixels"}
_ALL = (
    "All measurements. RMSE and SqRel are in metres by the protocol metric, SILog is in percent; δ, WHDR, "
    "mIoU and pixAcc are shares. Skill is 1 for the truth, 0 for no better than the mean map"
)
_TITLES = {
    "abs_rel": "AbsRel",
    MEAN_MAP: "AbsRel of the mean map",
    **{f"delta{n}": f"δ < 1.25{power}" for n, power in ((1, ""), (2, "²"), (3, "³"))},
    **{f"delta{n}_error": f"δ > 1.25{power}" for n, power in ((1, ""), (2, "²"), (3, "³"))},
    **{"sq_rel": "SqRel", "rmse": "RMSE", "rmse_log": "RMSE of log depth", "log10": "log₁₀ error"},
    **{"silog": "SILog", "whdr": "WHDR", "miou": "mIoU", "pix_acc": "pixAcc"},
}
"""Metric as it is logged -> title of its column."""

_FIRST = ("abs_rel", MEAN_MAP, SKILL)


def write_model_report(
    reference: str, out: Path, data: Sequence[str] = (), images: int = 4, split: str | None = None
) -> Path:
    """Write the page of a model, and its charts as files; returns the page's path.

    Args:
        reference: of a model, see `pipelines.tracking.model_reference.load_model`.
        out: folder to write to.
        data: prepared datasets, or folders of them, to show predictions on: with depth maps, or with labels
            for a segmentation model.
        images: number of images of each.
        split: of these datasets; by default the one that is not trained on.

    Raises:
        TrackingError, NotFound, BadModel, NotADataset: if there is no such model, or data.
    """
    model = load_model(reference)
    shown = _predictions(model, open_datasets(list(data)), images, split, out) if data else {}
    return _write_page(model, reference, shown, out)


def write_summary(config: dpt.ModelConfig, reference: str, out: Path) -> Path:
    """Write the page of the registered model `reference` to `out`, from its `config` and MLflow alone.

    Returns the page's path. Its weights are not needed: they may be gigabytes away.
    """
    with shapes_only():
        return _write_page(dpt.DPT(config), reference, {}, out)


def _write_page(model: dpt.DPT, reference: str, shown: dict[str, tuple[str, str]], out: Path) -> Path:
    measurements = measurements_of(reference)
    sections = {"measured": ("Measured", _measured(measurements, reference)), **shown}
    links = {anchor: title for anchor, (title, _) in sections.items()}
    # The last part of a local path is title enough; the whole path is printed below it.
    title = Path(reference).name if Path(reference).exists() else reference
    what = {"depth": "predicts depth", "segmentation": "labels every pixel"}[model.config.task]
    lead = escape(f"{model.config.backbone}; {'predicts metres' if model.config.metric else what}.")
    lead += "" if title == reference else f"<br/><code>{escape(reference)}</code>"
    top = header("A dense prediction transformer", title, lead, links)
    foot = f"Written on {datetime.now(timezone.utc):%d %B %Y}."
    text = blocks.report_page(
        f"Model: {title}", top, blocks.tiles([*_tiles(model), *_skill(measurements)]), sections, foot
    )
    return write_document(out / "report.html", text)


_DEPTH_PICTURES = (
    "<p>Predictions are aligned to the ground truth by scale and shift, image by image; bright is near. "
    "Where there is no ground truth, or it is farther than the cap, ground truth and error are black.</p>"
)
_SEGMENTATION_PICTURES = "<p>Whole images in one pass; what has no label is black, and counts nowhere.</p>"


def _tiles(model: dpt.DPT) -> list[tuple[str, str, str]]:
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    taps = ", ".join(map(str, config.taps))
    size = str(config.image_size).strip("()").replace(", ", " by ")
    return [
        ("Parameters", f"{parameters / 1e6:.1f} million", ""),
        ("Input", f"{size} px", config.resize_rule.replace("_", " ")),
        ("Taps", taps, f"readout: {config.readout}"),
    ]


# ---- metrics


def _skill(measurements: Sequence[Measurement]) -> list[tuple[str, str, str]]:
    """The tile of the newest mean skill; none if there is no such measurement."""
    keys = [str(MetricKey(RELATIVE, metric, MEAN)) for metric in _FIRST]
    for found in measurements:
        if all(key in found.metrics for key in keys):
            ours, baseline, skill = (found.metrics[key] for key in keys)
            return [("Skill", f"{skill:.2f}", f"AbsRel {ours:.4f}, of the mean map {baseline:.4f}")]
    return []


def _measured(measurements: Sequence[Measurement], reference: str) -> str:
    ours = ChainMap(*(found.metrics for found in measurements))
    if not ours:
        return (
            "<p>MLflow has no evaluation of this model yet: "
            f"<code>dpt evaluate --model {escape(reference)} …</code> makes one.</p>"
        )
    figures = ChainMap(*(found.paper_figures() for found in measurements))
    tables = [table for paper in TABLES if (table := beside_the_paper(paper, figures))]
    return "\n".join(table.html() for table in [*tables, _all(ours)])


def beside_the_paper(paper: PaperTable, ours: Mapping[str, float]) -> NumberTable | None:
    """A table of the `paper` below a row of `ours`, logged name → value; None without such metrics.

    A table takes only figures by its own protocol (`pipelines.evaluation.sets.PaperSet.key`).
    """
    keys = [set_of(paper, column).key(column.metric) for column in paper.columns]
    if not any(key in ours for key in keys):
        return None
    printed = list(zip(keys, paper.columns, strict=True))
    values = tuple(ours[key] * column.unit if key in ours else None for key, column in printed)
    rows = (Row("this model", "", values), *paper.rows)
    best = [
        (min if column.lower_is_better else max)(value for value in found if value is not None)
        for column, found in zip(paper.columns, zip(*(row.values for row in rows), strict=True), strict=True)
    ]
    columns = [Column(column.label, column.heading) for column in paper.columns]
    title = f"Table {paper.number}: {paper.title}, beside the paper's"
    table = NumberTable(title, [Column("model", text=True), *columns])
    for row in rows:
        cells = [
            Cell.absent() if value is None else Cell(column.text(value), value, best=value == top)
            for value, column, top in zip(row.values, paper.columns, best, strict=True)
        ]
        table.rows.append([Cell.of(row.name), *cells])
    return table


def _all(ours: Mapping[str, float]) -> NumberTable:
    """Every metric of a dataset, one row per protocol and dataset."""
    keys = [key for name in ours if (key := MetricKey.parse(name))]
    rows = sorted(
        {(key.protocol, key.dataset) for key in keys}, key=lambda row: (row[0], row[1] == MEAN, row)
    )
    metrics = sorted({key.metric for key in keys} - _NO_METRICS, key=lambda name: (name not in _FIRST, name))
    titles = [_TITLES.get(name, name.replace("_", " ")) for name in metrics]
    columns = [Column("protocol", text=True), Column("dataset", text=True), *map(Column, titles)]
    table = NumberTable(_ALL, columns)
    for protocol, dataset in rows:
        values = [ours.get(str(MetricKey(protocol, metric, dataset))) for metric in metrics]
        cells = [Cell.absent() if value is None else Cell(f"{value:.4f}", value) for value in values]
        table.rows.append([Cell.of(protocol.replace("_", "-")), Cell.of(dataset), *cells])
    return table


# ---- predictions


def _predictions(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], images: int, split: str | None, out: Path
) -> dict[str, tuple[str, str]]:
    """Anchor → title and HTML of the sections on predictions, attention and resolution."""
    model = dpt.FastDPT(model, resolve_device("auto"))
    samples = samples_of(model, datasets, images, split)
    shown = [show(model, sample) for sample in samples]
    found = by_resolution(model, samples)
    first = found[min(found)]
    if model.config.task == "segmentation":
        text, metric, unit = _SEGMENTATION_PICTURES, "mIoU", "points"
        change = {side: 100 * (value - first) for side, value in found.items()}
    else:
        text, metric, unit = _DEPTH_PICTURES, "mean AbsRel", "percent"
        change = {side: 100 * (value / first - 1) for side, value in found.items()}
    for one in shown:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in one.metrics.items())
        text += f"<h3>{escape(one.name)}, {metrics}</h3>{blocks.picture_grid(one.pictures.items())}"
    return {
        "predictions": ("Predictions", text),
        "attention": ("Attention", _attention(model, shown[0])),
        "resolution": ("Inference resolution", _resolution(metric, found, change, unit, out)),
    }


def _attention(model: dpt.DPT, shown: Shown) -> str:
    picture = attention_of(model, shown.pictures["image"])
    if picture is None:
        return f"<p>{escape(model.config.backbone)} has no tokens that attend to each other.</p>"
    text = (
        "<p>Where the marked tokens attend to in the tapped layers, averaged over heads; as in Figures A4 "
        "and A5 of the supplement.</p>"
    )
    return text + blocks.wide_picture(picture, shown.name)


def _resolution(metric: str, found: dict[int, float], change: dict[int, float], unit: str, out: Path) -> str:
    """Chart and table of a metric, and its change, by the side of the network's input."""
    sides, title = list(found), "Larger images than in training"
    caption = f"Change of the {metric} of the images above, from {min(sides)} pixels on."
    lines = [Line("this model", np.array(sides, np.float64), np.array(list(change.values())))]
    labels = ("side of the images in pixels", f"change of the {metric} in {unit}")
    chart = line_chart("resolution", title, caption, lines, *labels, ticks=sides, zero=True)
    chart.write(out / "charts")
    columns = [Column(title) for title in ("side", metric, f"change, {unit}")]
    table = NumberTable(f"The {metric} by side of the network's input", columns)
    for side, value in found.items():
        changed = Cell(f"{change[side]:+.1f}", change[side])
        table.rows.append([Cell(f"{side} px", side), Cell(f"{value:.4f}", value), changed])
    return blocks.charts([chart]) + table.html()
