"""The results of a zero-shot evaluation beside the paper's Table 1, as text, files and metrics.

per_image.parquet   every image: sample_id, dataset, each metric, scale, shift, valid pixels
table.csv           every figure of ours and the paper's, one per line
table.md            the printed table
worst_SET.png       the worst images: image, ground truth, aligned prediction, error

Intervals are those of the percentile bootstrap over images (Efron, 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import bootstrap

from datasets_prep.formats.pictures import decode_rgb, encode_png
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.storage.folder import Folder
from pipelines.evaluation.paper_tables import TABLE_1, Column, Row
from pipelines.evaluation.sets import ZERO_SHOT
from pipelines.plain_tables import comma_separated, in_markdown
from pipelines.tracking.metric_keys import MEAN
from pipelines.zero_shot.run import SetResult

LEVEL = 0.95
"""Confidence level of the intervals."""

PER_IMAGE, CSV_TABLE, MARKDOWN_TABLE = "per_image.parquet", "table.csv", "table.md"


@dataclass(frozen=True, slots=True)
class Figure:
    """Our figure on one set, by its `result`.

    Attributes:
        value: mean over its images, in the unit of its column of Table 1.
        low, high: ends of the 95 % interval.
        change: relative to the reference row of Table 1, in percent.
    """

    result: SetResult
    value: float
    low: float
    high: float
    change: float

    @property
    def column(self) -> Column:
        """Of Table 1."""
        return self.result.description.column

    @property
    def images(self) -> int:
        """Number of images that the mean is over."""
        return len(self.result.values)


@dataclass(frozen=True, slots=True)
class Report:
    """The `figures` of our `model` (display name), one per set, beside the rows of the `paper` on them."""

    model: str
    figures: tuple[Figure, ...]
    paper: tuple[Row, ...]

    @property
    def mean_change(self) -> float:
        """Mean of the sets' changes, in percent: section 4.1's average relative improvement."""
        return fmean(figure.change for figure in self.figures)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Dataset → metrics logged besides the means: intervals, number of images, changes."""
        found = {MEAN: {"change_percent": self.mean_change}}
        for figure in self.figures:
            metric, unit = figure.column.metric, figure.column.unit
            found[figure.column.dataset] = {
                f"{metric}_low": figure.low / unit,
                f"{metric}_high": figure.high / unit,
                "images": figure.images,
                "change_percent": figure.change,
            }
        return found


def make_report(model: str, results: Sequence[SetResult], resamples: int, seed: int) -> Report:
    """Compute means, intervals and changes of `results`, one per set, of the model called `model`.

    The bootstrap has `resamples`, drawn with this `seed`.
    """
    by_name = {result.name: result for result in results}
    paper = TABLE_1.of(*by_name)
    figures = []
    for column, base in zip(paper.columns, paper.reference_row.values, strict=True):
        result = by_name[column.dataset]
        low, high = bootstrap_interval(result.values, resamples, seed)
        value = column.unit * result.mean
        assert base is not None  # the reference has every set
        change = 100 * (value / base - 1)
        figures.append(Figure(result, value, column.unit * low, column.unit * high, change))
    return Report(model, tuple(figures), paper.rows)


def bootstrap_interval(values: NDArray[np.float64], resamples: int, seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean of independent values.

    Args:
        values: (n,), in an order that does not depend on which workers computed them.
        resamples: number of means of n values drawn with replacement.
        seed: of the draws.

    Returns:
        Lower and upper end, the 2.5th and 97.5th percentile of the means; NaN without values.
    """
    if len(values) < 2:  # SciPy refuses to resample a single value
        return (float(values[0]), float(values[0])) if len(values) else (float("nan"), float("nan"))
    # One resample at a time: all of DIW's together would be a gigabyte.
    options = {"n_resamples": resamples, "batch": 1, "rng": np.random.default_rng(seed)}
    means = bootstrap((values,), np.mean, method="percentile", **options).bootstrap_distribution
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


# ---- the table


def header(report: Report) -> list[str]:
    """Column titles of the table of a `report`: method, the sets, mean change."""
    columns = [f"{figure.column.heading} {figure.column.label}" for figure in report.figures]
    return ["", *columns, "mean change"]


def our_lines(report: Report) -> list[list[str]]:
    """Rows of a `report`: our figures, their intervals, their number of images."""
    figures = report.figures
    values = [_with_change(f.column.text(f.value), f.change) for f in figures]
    intervals = [f"{f.column.text(f.low)} to {f.column.text(f.high)}" for f in figures]
    beyond = [f", {count} beyond the cap" if (count := len(f.result.beyond_cap)) else "" for f in figures]
    counts = [
        f"{f.images} of {f.result.description.images}{more}" for f, more in zip(figures, beyond, strict=True)
    ]
    return [
        [report.model, *values, f"{report.mean_change:+.1f}%"],
        ["95 % interval", *intervals, ""],
        ["images", *counts, ""],
    ]


def paper_lines(report: Report) -> list[list[str]]:
    """The paper's rows of a `report`, as printed."""
    lines = []
    for row in report.paper:
        texts = [figure.column.text(value) for figure, value in zip(report.figures, row.values, strict=True)]
        if row.changes:
            texts = [_with_change(text, change) for text, change in zip(texts, row.changes, strict=True)]
        mean = f"{fmean(row.changes):+.1f}%" if row.changes else ""
        lines.append([f"paper: {row.name}", *texts, mean])
    return lines


def notes() -> str:
    """The caption of the table."""
    return f"Lower is better. Changes are relative to {TABLE_1.reference}, as in Table {TABLE_1.number}."


def markdown(report: Report) -> str:
    """The table of a `report` in Markdown."""
    lines = [header(report), ["---"] * len(header(report)), *our_lines(report), *paper_lines(report)]
    rows = "\n".join(f"| {' | '.join(map(in_markdown, line))} |" for line in lines)
    return f"{rows}\n\n{notes()}\n"


def figures_csv(report: Report) -> str:
    """CSV of a `report`, one figure per line."""
    names = ("method", "dataset", "metric", "value", "low", "high", "images", "of", "change_percent")
    lines: list[Sequence[object]] = [names]
    for f in report.figures:
        numbers = (f.value, f.low, f.high, f.images, f.result.description.images, f.change)
        lines.append([report.model, f.column.dataset, f.column.label, *numbers])
    for row in report.paper:
        changes = row.changes or ("",) * len(row.values)
        for f, value, change in zip(report.figures, row.values, changes, strict=True):
            key = (f"paper: {row.name}", f.column.dataset, f.column.label)
            lines.append([*key, value, "", "", "", "", change])
    return comma_separated(lines)


def _with_change(text: str, change: float) -> str:
    return f"{text} ({change:+.1f}%)"


# ---- files


def per_image(results: Sequence[SetResult]) -> pa.Table:
    """Every image of all `results`, in order; `problem` says why one has no metrics."""
    whole = pa.concat_tables([result.table for result in results])
    names = ["sample_id", "dataset", *(n for n in whole.column_names if n not in ("sample_id", "dataset"))]
    table = whole.select([name for name in names if name not in ("position", "failure", "finite")])
    return table.rename_columns(["valid_pixels" if n == "pixels" else n for n in table.column_names])


def write_files(
    folder: Folder,
    report: Report,
    results: Sequence[SetResult],
    worst: Mapping[str, Sequence[tuple[str, bytes]]],
) -> list[str]:
    """Write to a `folder`, atomically, the tables of a `report` and the values of every image of `results`.

    Also the pictures `worst`: set → titles and PNGs, see `pipelines.zero_shot.run.draw_worst`.

    Returns:
        the files' names.
    """
    with folder.writing(PER_IMAGE) as path:
        pq.write_table(per_image(results), path, compression="zstd")
    folder.write_text(CSV_TABLE, figures_csv(report))
    folder.write_text(MARKDOWN_TABLE, markdown(report))
    names = [PER_IMAGE, CSV_TABLE, MARKDOWN_TABLE]
    for name, entries in worst.items():
        if entries:
            titles = [f"{ZERO_SHOT[name].column.heading}: {title}" for title, _ in entries]
            sheet = contact_sheet([[decode_rgb(picture)] for _, picture in entries], titles)
            names.append(f"worst_{name}.png")
            with folder.writing(names[-1]) as path:
                path.write_bytes(encode_png(sheet))
    return names
