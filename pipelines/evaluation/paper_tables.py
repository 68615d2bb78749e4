"""The figures of the DPT paper's Tables 1 to 5, to be printed beside ours.

Values are as printed. Tables 2 and 3 head columns "δ > 1.25" that hold the share of pixels
with δ < 1.25 (larger is better); Table 1 has the share with δ > 1.25, in percent (smaller is better).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress


@dataclass(frozen=True, slots=True)
class Column:
    """One column of figures.

    Attributes:
        dataset: its name on the command line.
        heading: its name in the paper.
        metric: key in `dpt.metrics`.
        label: display name of the metric.
        unit: factor from our values to the printed ones: 100 where the paper prints percent.
        digits: after the decimal point.
        lower_is_better: True for errors.
    """

    dataset: str
    heading: str
    metric: str
    label: str
    unit: float
    digits: int
    lower_is_better: bool

    def text(self, printed: float | None) -> str:
        """A `printed` value, in the paper's unit, with the paper's digits; a dash for None."""
        return "-" if printed is None else f"{printed:.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one method.

    Attributes:
        method: as printed.
        setting: training set or backbone, as printed; may be "".
        values: one per column, in the column's unit; None where the paper has none.
        changes: change relative to the reference row in percent, one per column, as printed; or empty.
    """

    method: str
    setting: str
    values: tuple[float | None, ...]
    changes: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method}, {self.setting}" if self.setting else self.method


@dataclass(frozen=True, slots=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        number: 1 to 5.
        title: what it compares.
        columns: in the paper's order.
        rows: in the paper's order.
        reference: `Row.name` of the row that relative changes refer to; "" for a table without changes.
    """

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    reference: str = ""

    @property
    def reference_row(self) -> Row:
        """The row that relative changes refer to; the table must have a `reference`."""
        return next(row for row in self.rows if row.name == self.reference)

    def of(self, *datasets: str) -> PaperTable:
        """The table restricted to the columns of `datasets`, in the paper's order."""
        kept = [column.dataset in datasets for column in self.columns]
        rows = (
            replace(row, values=tuple(compress(row.values, kept)), changes=tuple(compress(row.changes, kept)))
            for row in self.rows
        )
        return replace(self, columns=tuple(compress(self.columns, kept)), rows=tuple(rows))


def _rows(printed: str) -> tuple[Row, ...]:
    """Rows from text: a line is `method | setting | value …`, a value with its change `10.82/-13.2`."""
    rows = []
    for line in printed.strip().splitlines():
        method, setting, figures = (part.strip() for part in line.split("|"))
        pairs = [figure.partition("/") for figure in figures.split()]
        values = tuple(None if value == "-" else float(value) for value, _, _ in pairs)
        rows.append(Row(method, setting, values, tuple(float(change) for _, _, change in pairs if change)))
    return tuple(rows)


_PRINTED = {
    "whdr": ("WHDR", 100.0, 2, True),
    "abs_rel": ("AbsRel", 1.0, 3, True),
    "rmse": ("RMSE", 1.0, 3, True),
    "rmse_log": ("RMSE log", 1.0, 3, True),
    "log10": ("log10", 1.0, 3, True),
    "delta1_error": ("δ > 1.25", 100.0, 2, True),
    "delta1": ("δ < 1.25", 1.0, 3, False),
    "delta2": ("δ < 1.25²", 1.0, 3, False),
    "delta3": ("δ < 1.25³", 1.0, 3, False),
    "pix_acc": ("pixAcc [%]", 100.0, 2, False),
    "miou": ("mIoU [%]", 100.0, 2, False),
}
"""Metric → label, unit, digits and lower_is_better of its columns."""


def _columns(*datasets: tuple[str, str, str]) -> tuple[Column, ...]:
    """Columns of (dataset, heading, metrics separated by spaces)."""
    return tuple(
        Column(dataset, heading, metric, *_PRINTED[metric])
        for dataset, heading, metrics in datasets
        for metric in metrics.split()
    )


TABLE_1 = PaperTable(
    1,
    "zero-shot transfer",
    _columns(
        ("diw", "DIW", "whdr"),
        ("eth3d", "ETH3D", "abs_rel"),
        ("sintel", "Sintel", "abs_rel"),
        ("kitti", "KITTI", "delta1_error"),
        ("nyu", "NYU", "delta1_error"),
        ("tum", "TUM", "delta1_error"),
    ),
    _rows("""
        DPT-Large  | MIX 6 | 10.82/-13.2  0.089/-31.2  0.270/-17.5   8.46/-64.6   8.32/-12.9   9.97/-30.3
        DPT-Hybrid | MIX 6 | 11.06/-11.2  0.093/-27.6  0.274/-16.2  11.56/-51.6   8.69/-9.0   10.89/-23.2
        MiDaS      | MIX 6 | 12.95/+3.9   0.116/-10.5  0.329/+0.5   16.08/-32.7   8.71/-8.8   12.51/-12.5
        MiDaS      | MIX 5 | 12.46        0.129        0.327        23.90         9.55        14.29
        Li 2018    | MD    | 23.15        0.181        0.385        36.29        27.52        29.54
        Li 2019    | MC    | 26.52        0.183        0.405        47.94        18.57        17.71
        Wang       | WS    | 19.09        0.205        0.390        31.92        29.57        20.18
        Xian       | RW    | 14.59        0.186        0.422        34.08        27.00        25.02
        Casser     | CS    | 32.80        0.235        0.422        21.15        39.58        37.18
    """),
    reference="MiDaS, MIX 5",
)
"""Zero-shot transfer. Printed changes come from unrounded values, and differ from those of the printed ones
by up to 0.4; that of DPT-Hybrid on TUM, -23.2, by 0.6: its values give -23.8."""

TABLE_2 = PaperTable(
    2,
    "fine-tuned on NYUv2",
    _columns(("nyu", "NYUv2", "delta1 delta2 delta3 abs_rel rmse log10")),
    _rows("""
        DORN       | | 0.828  0.965  0.992  0.115  0.509  0.051
        VNL        | | 0.875  0.976  0.994  0.111  0.416  0.048
        BTS        | | 0.885  0.978  0.994  0.110  0.392  0.047
        DPT-Hybrid | | 0.904  0.988  0.998  0.110  0.357  0.045
    """),
)

TABLE_3 = PaperTable(
    3,
    "fine-tuned on KITTI, Eigen split",
    _columns(("kitti", "KITTI", "delta1 delta2 delta3 abs_rel rmse rmse_log")),
    _rows("""
        DORN       | | 0.932  0.984  0.994  0.072  2.626  0.120
        VNL        | | 0.938  0.990  0.998  0.072  3.258  0.117
        BTS        | | 0.956  0.993  0.998  0.059  2.756  0.096
        DPT-Hybrid | | 0.959  0.995  0.999  0.062  2.573  0.092
    """),
)

TABLE_4 = PaperTable(
    4,
    "semantic segmentation, ADE20K validation set",
    _columns(("ade20k", "ADE20K", "pix_acc miou")),
    _rows("""
        OCNet      | ResNet101   | -      45.45
        ACNet      | ResNet101   | 81.96  45.90
        DeeplabV3  | ResNeSt-101 | 82.07  46.91
        DeeplabV3  | ResNeSt-200 | 82.45  48.36
        DPT-Hybrid | ViT-Hybrid  | 83.11  49.02
        DPT-Large  | ViT-Large   | 82.70  47.63
    """),
)

TABLE_5 = PaperTable(
    5,
    "semantic segmentation, Pascal Context validation set",
    _columns(("pascal_context_59", "Pascal Context", "pix_acc miou")),
    _rows("""
        OCNet      | HRNet-W48   | -      56.20
        DeeplabV3  | ResNeSt-200 | 82.50  58.37
        DeeplabV3  | ResNeSt-269 | 83.06  58.92
        DPT-Hybrid | ViT-Hybrid  | 84.83  60.46
    """),
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5)
