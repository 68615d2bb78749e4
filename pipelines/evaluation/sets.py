"""The datasets of the paper's Tables 1 to 5: names, number of images, protocol: the one place that says so.

One entry per table and dataset: KITTI is one set of images in Table 1 (zero-shot) and another in Table 3
(fine-tuned), so both entries are called `kitti`, and each belongs to its own index below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pipelines.config import MetricRegion
from pipelines.evaluation.paper_tables import TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, Column, PaperTable
from pipelines.tracking import metric_keys
from pipelines.tracking.metric_keys import MetricKey


@dataclass(frozen=True, slots=True)
class PaperSet:
    """A dataset that one of the paper's tables has figures on.

    Attributes:
        name: on the command line, and `Column.dataset` in the table.
        table: the paper's figures.
        sources: readers in `datasets_prep.sources`, and so names of prepared datasets, the preferred first.
        images: number of test images (validation images for segmentation).
        measured_by: protocol of the table's figures, one of `pipelines.tracking.metric_keys.PROTOCOLS`.
    """

    name: str
    table: PaperTable
    sources: tuple[str, ...]
    images: int
    measured_by: ClassVar[str] = metric_keys.SEGMENTATION

    @property
    def logged_name(self) -> str:
        """Its name in metrics: that of the prepared dataset."""
        return self.sources[0]

    def key(self, metric: str) -> str:
        """Name in MLflow of the figures of `metric`, in `dpt.metrics`, that belong into the table."""
        return str(MetricKey(self.measured_by, metric, self.logged_name))


@dataclass(frozen=True, slots=True)
class ZeroShotSet(PaperSet):
    """A dataset of Table 1, evaluated zero-shot by the protocol of Ranftl et al., TPAMI 2020, section 6.

    Attributes:
        cap: metres; ground truth at or beyond it is ignored. None where the ground truth is the order of two
            points.
        rule: `transforms.network_size` of the images: `upper_bound` scales the longer side to the network's;
            KITTI's images would become too small, so there it is the shorter one.
        border: pixels at each side whose ground truth is ignored.
        folders: further names that its raw folder may have.
        hint: what is usually the matter when images are missing.
    """

    measured_by = metric_keys.ZERO_SHOT
    cap: float | None
    rule: str = "upper_bound"
    border: int = 0
    folders: tuple[str, ...] = ()
    hint: str = ""

    @property
    def logged_name(self) -> str:
        """Its name in metrics: that on the command line, since it is read from raw data."""
        return self.name

    @property
    def column(self) -> Column:
        """Its column of Table 1."""
        return next(column for column in self.table.columns if column.dataset == self.name)


@dataclass(frozen=True, slots=True)
class MetricProtocol:
    """Which pixels are compared as depth in metres (`pipelines.evaluation.metric_depth`).

    Attributes:
        cap: maximum depth in metres.
        region: crop of the image: `garg`, `eigen`, or `all` of it.
        kb_crop: True where the network sees only KITTI's benchmark crop; only that is compared then.
    """

    cap: float
    region: MetricRegion = "all"
    kb_crop: bool = False

    def __str__(self) -> str:
        return f"cap={self.cap:g} m, region={self.region}, kb_crop={self.kb_crop}"


@dataclass(frozen=True, slots=True)
class FineTuningSet(PaperSet):
    """A dataset of Tables 2 and 3, whose official split is of the dataset prepared by `sources[0]`.

    Attributes:
        protocol: crop and cap of the evaluation.
        title: display name of the official split.
        train_images: number of training images.
        digest: SHA-256 of the sorted names of the test images, joined by newlines.
        lists: the options of `dpt prepare` that give this split.
        listed_name: sample id → name in the official list.
    """

    measured_by = metric_keys.METRIC
    protocol: MetricProtocol
    title: str
    train_images: int
    digest: str
    lists: str
    listed_name: Callable[[str], str]

    @property
    def split_images(self) -> dict[str, int]:
        """Split → number of its images."""
        return {"train": self.train_images, "test": self.images}


_HINT_KITTI = (
    "the 161 are those of the official val folder that the Eigen test list names: give it as "
    "lists.kitti=FILE, or put it into the folder under a name with `test`"
)
_HINT_TUM = "the 1,815 are the frames of tum_hdf5.tgz; of whole sequences choose with lists.tum=FILE"
_LISTS = "lists.train=… lists.test=… (BTS's {0}_train_files_with_gt.txt, {0}_test_files_with_gt.txt)"

ZERO_SHOT = {
    entry.name: entry
    for entry in (
        ZeroShotSet("diw", TABLE_1, ("diw",), 74_441, None, folders=("depth_in_the_wild",)),
        ZeroShotSet("eth3d", TABLE_1, ("eth3d",), 454, 72.0),
        ZeroShotSet("sintel", TABLE_1, ("sintel",), 1_064, 72.0, folders=("mpi_sintel",)),
        ZeroShotSet("kitti", TABLE_1, ("kitti_161",), 161, 80.0, "lower_bound", hint=_HINT_KITTI),
        # NYUv2's raw depth ends far inside of this border; photos have a white frame there.
        ZeroShotSet(
            "nyu", TABLE_1, ("nyuv2_labelled", "nyuv2"), 654, 10.0, border=8, folders=("nyu", "nyu_depth_v2")
        ),
        ZeroShotSet("tum", TABLE_1, ("tum",), 1_815, 10.0, folders=("tum_rgbd",), hint=_HINT_TUM),
    )
}
"""Name → set of Table 1, in the order of its columns."""

FINE_TUNED = {
    entry.name: entry
    for entry in (
        # The Eigen split in BTS's form: the 652 of its 697 test images that have the improved ground truth.
        FineTuningSet(
            "kitti",
            TABLE_3,
            ("kitti", "kitti_161"),
            652,
            MetricProtocol(80.0, "garg", kb_crop=True),
            "Eigen split of KITTI",
            23_158,
            "a329db02370f8b892470909dbca8a616a2b7ec5b96a6a17ee796f331e1670180",
            _LISTS.format("eigen"),
            str,
        ),
        FineTuningSet(
            "nyu",
            TABLE_2,
            ("nyuv2", "nyuv2_labelled"),
            654,
            MetricProtocol(10.0, "eigen"),
            "split of NYUv2",
            24_231,
            "006daa1fc1cdde7e9c9a08eefef2bec0480efdfab9cf24a145609752f8442f02",
            _LISTS.format("nyudepthv2"),
            lambda sample_id: "/".join(sample_id.split("/")[-2:]),  # scene and number
        ),
    )
}
"""Name → set of Tables 2 and 3."""

SEGMENTED = {
    entry.name: entry
    for entry in (
        PaperSet("ade20k", TABLE_4, ("ade20k",), 2_000),
        PaperSet("pascal_context_59", TABLE_5, ("pascal_context_59",), 5_105),
    )
}
"""Name, also as a prepared dataset, → set of Tables 4 and 5."""

OFFICIAL = {entry.sources[0]: entry for entry in FINE_TUNED.values()}
"""Prepared dataset → its set of Tables 2 and 3."""

PROTOCOLS = {source: entry.protocol for entry in FINE_TUNED.values() for source in entry.sources}
"""Prepared dataset → the published protocol of its depth in metres."""


def set_of(table: PaperTable, column: Column) -> PaperSet:
    """The set that a `column` of a `table` has figures on."""
    indices: tuple[Mapping[str, PaperSet], ...] = (ZERO_SHOT, FINE_TUNED, SEGMENTED)
    named = (index[column.dataset] for index in indices if column.dataset in index)
    return next(entry for entry in named if entry.table.number == table.number)
