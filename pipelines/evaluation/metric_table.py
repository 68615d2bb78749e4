"""Metrics of depth in metres as a table, beside the rows of the paper where it has some."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipelines.evaluation.metric_protocol import METRICS
from pipelines.evaluation.official_splits import of_how_many
from pipelines.evaluation.paper_tables import TABLE_2, TABLE_3

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
