"""What every source of depth data offers: list its samples, read one of them.

A source knows one dataset's published layout and byte formats and nothing else. It does not resize,
normalise, write or talk to Ray: `datasets_prep.ingest` does, the same way for all of them.
"""

import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import WrongLayout
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.storage.folder import Folder

TargetKind = Literal["metric", "up-to-scale", "affine", "ordinal", "labels"]
"""Kind of ground truth. Depth: `metric` (metres), `up-to-scale` (one unknown factor per image or scene) or
`affine` (inverse depth up to an unknown scale and shift). `ordinal`: which of two points is farther.
`labels`: a class for every pixel."""

Quantity = Literal["depth", "inverse_depth"]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file or folder of a raw dataset (`path`) that was left out, and the `reason`."""

    path: str
    reason: str


@dataclass(slots=True)
class Listing:
    """All `samples` that a source found, what it `rejected`, and files that are `unused`.

    Unused files belong to no sample, so they don't decide a dataset's version. Of a published dataset, whose
    folder holds much besides, `unread` is how many files are neither of a sample nor a list, and the first.
    """

    samples: Samples = field(default_factory=Samples)
    rejected: list[Rejection] = field(default_factory=list)
    unused: list[Rejection] = field(default_factory=list)
    unread: tuple[int, str] = (0, "")


@dataclass(slots=True)
class RawSample:
    """One sample as its source has it, at its native resolution.

    Attributes:
        image: the image file's own bytes (JPEG or PNG).
        target: (H, W) float32, depth or inverse depth: metres or 1/metres for a metric source, else any unit.
        quantity: which of the two `target` is.
        valid: (H, W) bool; False where there is no ground truth. `sky` pixels count as not valid here.
        sky: (H, W) bool, pixels known to be infinitely far; None if the source does not mark sky.
    """

    image: bytes
    target: NDArray[np.float32]
    quantity: Quantity
    valid: NDArray[np.bool_]
    sky: NDArray[np.bool_] | None = None


@dataclass(slots=True)
class RawLabels:
    """One sample of a segmentation set: the `image` file's own bytes (JPEG or PNG), and its `labels`.

    These are (H, W) uint8 class ids from 0, `IGNORED_LABEL` where there is none.
    """

    image: bytes
    labels: NDArray[np.uint8]


IGNORED_LABEL = 255
"""Label of pixels that training and evaluation ignore."""


def lists_named_by_split(ending: str) -> re.Pattern[str]:
    """Matches paths of list files `*.{ending}` that have `train` or `test` in their names, in any case."""
    return re.compile(rf"(?is)(?:.*/)?(?:[^/]*(?P<train>train)|[^/]*(?P<test>test))[^/]*\.{ending}")


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
        name: name on the command line and in the shards' column `dataset`.
        target_kind: kind of its ground truth.
        layout: the expected files, one pattern a line, shown when a folder does not match.
        sizes_may_differ: whether image and target of a good sample may differ in size (the target is then
            resized to the image); otherwise a difference means a damaged sample.
        evaluation_splits: splits whose rows keep image bytes and ground truth at native resolution.
        only_listed: whether only samples that a list names belong to the dataset.
        list_pattern: matches the paths of the authors' list files; its last matched group is named for the
            split that the file lists.
        lists_are_exact: whether each line of a list has to name a sample. (Lists of published datasets often
            name more than a user has.)
        lists_start_with_slash: whether the authors' lists put a slash before paths in the dataset root.
        reads_pieces: whether files may have any size, because only pieces of them are read.
        fingerprint: digest of what else decides the rows, besides files and settings; "" for most sources.
    """

    name: str
    target_kind: TargetKind
    layout: ClassVar[str]
    sizes_may_differ: bool = False
    evaluation_splits: ClassVar[frozenset[str]] = frozenset()
    only_listed: ClassVar[bool] = False
    list_pattern: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")
    lists_are_exact: ClassVar[bool] = False
    lists_start_with_slash: ClassVar[bool] = False
    reads_pieces: ClassVar[bool] = False
    fingerprint: str = ""

    def opened(self, root: Folder, options: Mapping[str, object]) -> "Source":
        """This source, configured for the dataset root `root` by `options` that only this source has.

        Raises WrongLayout if an option, or a description file in `root`, is not valid.
        """
        if options:
            raise WrongLayout(f"options: {self.name} has none, got {', '.join(sorted(options))}")
        return self

    def split_of_list(self, path: str) -> str | None:
        """The split that the file at `path` in the dataset root lists; None if it is not a list file."""
        match = self.list_pattern.fullmatch(path)
        return match.lastgroup if match else None

    def reader_of_lines(self, keys: AbstractSet[str]) -> Callable[[str], Sequence[str]]:
        """A function from a line of a list to those of `keys` that it names: none, one, or, unclear, several.

        The `keys` are the `list_key` of all samples.
        """

        def read(line: str) -> Sequence[str]:
            path, *others = line.split()
            safe = self._inside(path)
            key = self.listed((safe, *others)) if safe else None
            return [key] if key is not None and key in keys else []

        return read

    def _inside(self, path: str) -> str | None:
        """A list's path, normalised; None if it points outside the dataset root."""
        relative = path.lstrip("/") if self.lists_start_with_slash else path
        normal = posixpath.normpath(relative)
        outside = normal.startswith("/") or normal == ".." or normal.startswith("../") or "\\" in normal
        return None if outside or not relative else normal

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The `list_key` of the samples that a line of a list names; None if it cannot name any.

        Of the line's words, `columns`, the first is a path, normalised and inside the dataset root.
        """
        return columns[0]

    def list_key(self, sample: Sample) -> str:
        """The name of `sample` in list files: its id, or a name that several samples share."""
        return sample.sample_id

    @abstractmethod
    def list(self, root: Folder) -> Listing:
        """Find every sample below `root`, in a reproducible order, without reading images or depth.

        Returns an empty listing when nothing matches the layout. Raises WrongLayout if `root` is recognised
        as another product that cannot be read.
        """

    @abstractmethod
    def read(self, root: Folder, sample: Sample) -> RawSample | RawLabels | RawPointPair:
        """Read one `sample` below `root` at its native resolution.

        Raises BadSample with the reason, if the sample is damaged or unusable; OSError when storage fails;
        the sample itself may be good.
        """
