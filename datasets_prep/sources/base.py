"""What every source of depth data offers: list its samples, read one of them.

A source knows one dataset's published layout and byte formats and nothing else. It does not resize,
normalise, write or talk to Ray: `datasets_prep.ingest` does, the same way for all of them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import WrongLayout
from datasets_prep.sources.files_by_sample import FilesBySample, collect_files
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing import FileListing

TargetKind = Literal["metric", "up-to-scale", "affine", "ordinal", "labels"]
"""What a dataset's ground truth is. Depth: `metric` (metres), `up-to-scale` (one unknown factor an image or
scene) or `affine` (inverse depth up to an unknown scale and shift). `ordinal`: which of two points is
farther. `labels`: a class for every pixel."""

Quantity = Literal["depth", "inverse_depth"]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something in a raw dataset that was left out, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Listing:
    """All samples that a source found, and what it had to leave out."""

    samples: Samples = field(default_factory=Samples)
    rejected: list[Rejection] = field(default_factory=list)


def files_by_sample(
    files: FileListing, pattern: re.Pattern[str], scope: str, listing: Listing
) -> FilesBySample:
    """Bring together the files of each sample of a dataset whose files share a name.

    Args:
        files: all files.
        pattern: matches a whole path; its last matched group is named for the role of the file (`image`,
            `depth`, …) and holds the sample's name.
        scope: the pattern's group in which that name is unique: a scene, a split.
        listing: second copies of a file are noted here as rejected.

    Returns:
        (scope, name) → role → path, to be iterated in sorted order.
    """
    found, copies = collect_files(files, pattern, scope)
    listing.rejected += [Rejection(copy, f"second copy of {first}") for copy, first in copies]
    return found


@dataclass(slots=True)
class RawSample:
    """One sample as its source has it, at its native resolution.

    Attributes:
        image: the image file's own bytes (JPEG or PNG).
        target: (H, W) float32, depth or inverse depth: metres or 1/metres for a metric source, else any unit.
        quantity: which of the two `target` is.
        valid: (H, W) bool; False where the target means nothing. `sky` pixels count as not valid here.
        sky: (H, W) bool, pixels known to be infinitely far, or None where the source cannot tell.
    """

    image: bytes
    target: NDArray[np.float32]
    quantity: Quantity
    valid: NDArray[np.bool_]
    sky: NDArray[np.bool_] | None = None


@dataclass(slots=True)
class RawLabels:
    """One sample of a segmentation set.

    Attributes:
        image: the image file's own bytes (JPEG or PNG).
        labels: (H, W) uint8, class ids from 0; `IGNORED_LABEL` where there is none.
    """

    image: bytes
    labels: NDArray[np.uint8]


IGNORED_LABEL = 255
"""Label of pixels that count for nothing, neither in training nor in evaluation."""


@dataclass(slots=True)
class RawPointPair:
    """One sample whose ground truth is the order of two points in depth.

    Attributes:
        image: the image file's own bytes (JPEG or PNG).
        y_a, x_a, y_b, x_b: the points, counted from 0 at the upper left pixel.
        a_is_farther: whether the depth at A is larger than that at B.
    """

    image: bytes
    y_a: int
    x_a: int
    y_b: int
    x_b: int
    a_is_farther: bool


class Source(ABC):
    """One dataset in its published layout.

    Attributes:
        name: as used on the command line and in the shards' `dataset` column.
        target_kind: what is known of its depth.
        layout: the expected files, one pattern a line, shown when a folder does not match.
        sizes_may_differ: whether image and target of a good sample may differ in size (the target is then
            resized to the image); otherwise a difference means a damaged sample.
        native_splits: splits for evaluation, whose image bytes and ground truth are kept as they are.
        only_listed: whether only samples that a list names belong to the dataset.
        lists_start_with_slash: whether the authors' lists put a slash before paths in the dataset's folder.
        reads_pieces: whether files may have any size, because only pieces of them are read.
        fingerprint: what else decides the rows, besides the files and the settings; "" where nothing does.
    """

    name: str
    target_kind: TargetKind
    layout: ClassVar[str]
    sizes_may_differ: ClassVar[bool] = False
    native_splits: ClassVar[frozenset[str]] = frozenset()
    only_listed: ClassVar[bool] = False
    lists_start_with_slash: ClassVar[bool] = False
    reads_pieces: ClassVar[bool] = False
    fingerprint: str = ""

    def opened(self, root: Folder, options: Mapping[str, object]) -> Source:
        """This source set up for one folder.

        Args:
            options: settings that only this source has.

        Raises:
            WrongLayout: if an option, or a description that lies in the folder, is wrong.
        """
        if options:
            raise WrongLayout(f"options: {self.name} has none, got {', '.join(sorted(options))}")
        return self

    def split_of_list(self, path: str) -> str | None:
        """The split that a file in the dataset's folder lists, or None if it is no list of the authors'."""
        return None

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The `list_key` of the samples that a list's line names, or None if it can name none.

        Args:
            columns: the line's words; the first, a path, is normalised and inside the dataset's folder.
        """
        return columns[0]

    def list_key(self, sample: Sample) -> str:
        """What list files call a sample: its id, or something that several samples share."""
        return sample.sample_id

    @abstractmethod
    def list(self, root: Folder) -> Listing:
        """Find every sample below `root`, in a reproducible order, without reading images or depth.

        Returns an empty listing when nothing matches the layout.

        Raises:
            WrongLayout: when the folder is recognised as something else that cannot be read.
        """

    @abstractmethod
    def read(self, root: Folder, sample: Sample) -> RawSample | RawLabels | RawPointPair:
        """Read one sample at its native resolution.

        Raises:
            BadSample: with the reason, for a damaged or unusable sample.
            OSError: when storage fails; the sample itself may be good.
        """
