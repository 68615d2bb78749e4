"""The paper's ablations as data (section 4.3): what varies in each table, and what the authors measured.

A row is a title and the settings by which it differs from the common training config. Figures are AbsRel on
the validation images of three datasets after affine alignment, and their mean, as printed; lower is better.

Table 6 was run with readout "ignore": its first row is the first of Table 7, and its last one, hybrid
{R0, R1, 9, 12}, differs from the ViT-Hybrid of Table 8, which has readout "project" as "all further
experiments".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tune.records import LATENCY, MEAN, PARAMETERS

DATASETS = ("hrwsi", "blendedmvs", "redweb")
"""Datasets of the reduced meta-dataset, in the order of the tables' columns."""

_MODEL, _TAPS, _READOUT = "model.name", "model.overrides.taps", "model.overrides.readout"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        title: unique in its table.
        changes: dotted key of `TrainConfig` → value.
        paper: column → the figure printed in the paper; empty where it prints none.
        bold: the columns in which the paper sets this row in bold.
    """

    title: str
    changes: Mapping[str, Any]
    paper: Mapping[str, float] = field(default_factory=dict)
    bold: frozenset[str] = frozenset()

    def recomputed_mean(self) -> float | None:
        """Mean of the printed figures of all datasets, to four digits; None where one is missing."""
        if not all(dataset in self.paper for dataset in DATASETS):
            return None
        return round(sum(self.paper[dataset] for dataset in DATASETS) / len(DATASETS), 4)


@dataclass(frozen=True)
class AblationTable:
    """One table or figure: rows that are trained with the same config but for their changes, and compared.

    Attributes:
        name: on the command line and in MLflow.
        number: in the paper; empty for other ablations.
        caption: what is compared.
        rows: in the paper's order.
        claims: the paper's conclusion.
        notes: errors and gaps in the printed figures.
        trained: whether its figures need trained models; those of Table 9 do not.
    """

    name: str
    number: str
    caption: str
    rows: tuple[Row, ...]
    claims: str = ""
    notes: tuple[str, ...] = ()
    trained: bool = True


def _row(title: str, changes: Mapping[str, Any], figures: str) -> Row:
    """A row with its figures as printed, of all datasets and the mean; `*` marks those in bold."""
    printed = dict(zip((*DATASETS, MEAN), figures.split(), strict=True))
    bold = frozenset(column for column, figure in printed.items() if figure.startswith("*"))
    return Row(
        title, changes, {column: float(figure.lstrip("*")) for column, figure in printed.items()}, bold
    )


def _taps(model: str, *taps: int | str) -> dict[str, Any]:
    """Changes of a row of Table 6."""
    return {_MODEL: model, _TAPS: list(taps), _READOUT: "ignore"}


SKIP = AblationTable(
    "skip",
    "Table 6",
    "Skip connections to different encoder layers, counted from 1; R0 and R1 are stages of the ResNet-50",
    (
        _row("Base {3, 6, 9, 12}", _taps("dpt_base", 3, 6, 9, 12), "0.0793 0.0780 0.0892 0.0822"),
        _row("Base {6, 8, 10, 12}", _taps("dpt_base", 6, 8, 10, 12), "0.0801 0.0789 0.0904 0.0831"),
        _row("Base {9, 10, 11, 12}", _taps("dpt_base", 9, 10, 11, 12), "0.0805 0.0766 0.0912 0.0828"),
        _row("Hybrid {3, 6, 9, 12}", _taps("dpt_hybrid", 3, 6, 9, 12), "0.0747 *0.0748 0.0865 0.0787"),
        _row(
            "Hybrid {R0, R1, 9, 12}",
            _taps("dpt_hybrid", "R0", "R1", 9, 12),
            "*0.0742 0.0751 *0.0857 *0.0733",
        ),
    ),
    "Best results are achieved with a combination of skip connections from shallow and deep layers.",
    (
        "The paper prints 0.0733 as the mean of Hybrid {R0, R1, 9, 12}; the row's own figures (0.0742, "
        "0.0751, 0.0857) average 0.0783.",
        "All rows have readout “ignore”: the first one is the first of Table 7, and the last one is not the "
        "ViT-Hybrid of Table 8.",
    ),
)

READOUT = AblationTable(
    "readout",
    "Table 7",
    "What the Reassemble operation does with the readout token; ViT-Base {3, 6, 9, 12}",
    (
        _row("Ignore", {_MODEL: "dpt_base", _READOUT: "ignore"}, "*0.0793 0.0780 *0.0892 0.0822"),
        _row("Add", {_MODEL: "dpt_base", _READOUT: "add"}, "0.0799 0.0789 0.0904 0.0831"),
        _row("Project", {_MODEL: "dpt_base", _READOUT: "project"}, "0.0797 *0.0764 0.0895 *0.0819"),
    ),
    "Fusing the readout token to the individual input tokens using a projection layer yields the best "
    "performance.",
)

BACKBONE = AblationTable(
    "backbone",
    "Table 8",
    "Backbones, all with the decoder of DPT and readout “project”",
    (
        _row("ResNet50", {_MODEL: "dpt_resnet50"}, "0.0890 0.0887 0.1029 0.0935"),
        _row("ResNeXt101-WSL", {_MODEL: "dpt_resnext101_wsl"}, "0.0780 0.0751 0.0886 0.0806"),
        _row("DeiT-Base", {_MODEL: "dpt_deit_base"}, "0.0798 0.0804 0.0925 0.0842"),
        _row("DeiT-Base-Dist", {_MODEL: "dpt_deit_base_distilled"}, "0.0758 0.0758 0.0871 0.0796"),
        _row("ViT-Base", {_MODEL: "dpt_base"}, "0.0797 0.0764 0.0895 0.0819"),
        _row("ViT-Large", {_MODEL: "dpt_large"}, "0.0740 0.0747 *0.0846 *0.0778"),
        _row("ViT-Hybrid", {_MODEL: "dpt_hybrid"}, "*0.0738 *0.0746 0.0864 0.0783"),
    ),
    "The hybrid and large backbones consistently outperform the convolutional baselines. The base "
    "architecture can outperform the convolutional baseline with better pretraining (DeiT-Base-Dist).",
    ("ViT-Base is the row “Project” of Table 7.",),
)

RESOLUTION = AblationTable(
    "resolution",
    "Figure 4",
    "Inference at higher resolutions than the 384 pixels of training: change of AbsRel in percent",
    tuple(Row(row.title, row.changes) for row in BACKBONE.rows),
    "The performance of DPT variants degrades more gracefully as inference resolution increases.",
    ("The paper draws these curves and prints no figures; there is nothing to subtract from ours.",),
)

SPEED = AblationTable(
    "speed",
    "Table 9",
    "Parameters, and latency of one square image with sides as in training",
    tuple(
        Row(title, {_MODEL: model}, {PARAMETERS: parameters, LATENCY: latency})
        for title, model, parameters, latency in (
            ("MiDaS", "midas_v21", 105.0, 32.0),
            ("DPT-Base", "dpt_base", 112.0, 17.0),
            ("DPT-Hybrid", "dpt_hybrid", 123.0, 38.0),
            ("DPT-Large", "dpt_large", 343.0, 35.0),
        )
    ),
    "DPT has comparable inference speed to the state of the art.",
    (
        "The paper measured on an Nvidia RTX 2080, 384 pixels square, the average of 400 runs.",
        "Its counts include parts that no prediction uses: the classifier of ImageNet (of DPT-Base and "
        "DPT-Hybrid) and a residual unit of the deepest fusion block; ours are about 2 % smaller.",
    ),
    trained=False,
)

PAPER: Mapping[str, AblationTable] = MappingProxyType(
    {table.name: table for table in (SKIP, READOUT, BACKBONE, RESOLUTION, SPEED)}
)
"""Name → table, in the order of `records.TABLES`."""
