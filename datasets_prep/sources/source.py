"""What every source of depth data offers: list its samples, read one of them.

A source knows one dataset's published layout and byte formats and nothing else. It does not resize,
normalise, write or talk to Ray: `datasets_prep.normalize` and `datasets_prep.ingest` do, the same way for
all of them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import UserError
from datasets_prep.storage import Folder

TargetKind = Literal["metric", "up-to-scale", "affine"]
"""What is known of a dataset's depth: `metric` (metres), `up-to-scale` (one unknown factor an image or
scene) or `affine` (inverse depth up to an unknown scale and shift)."""

Quantity = Literal["depth", "inverse_depth"]


class BadSample(ValueError):
    """A sample that cannot be used; the message is the reason that the quarantine table shows."""


class WrongLayout(UserError):
    """A folder that is not what the source expects; the message says what was expected and what is there."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a raw dataset: found, not read.

    Attributes:
        sample_id: unique in its dataset, the same on every machine (made of relative paths).
        files: role (`image`, `depth`, …) → path relative to the dataset's folder.
        group: what must not be torn apart by a random split: a scene, a trajectory, or the image itself.
        split: the official split (`train`, `val`, `test`), or None where there is none.
    """

    sample_id: str
    files: dict[str, str]
    group: str
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something in a raw dataset that was left out, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Listing:
    """All samples that a source found, and what it had to leave out."""

    samples: list[Sample] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


def files_by_sample(
    paths: Iterable[str], pattern: re.Pattern[str], scope: str, listing: Listing
) -> dict[tuple[str, str], dict[str, str]]:
    """Bring together the files of each sample of a dataset whose files share a name.

    Args:
        paths: relative paths of all files.
        pattern: matches a whole path; its last matched group is named for the role of the file (`image`,
            `depth`, …) and holds the sample's name.
        scope: the pattern's group in which that name is unique: a scene, a split.
        listing: second copies of a file are noted here as rejected.

    Returns:
        (scope, name) → role → path.
    """
    samples: dict[tuple[str, str], dict[str, str]] = {}
    for path in paths:
        if match := pattern.fullmatch(path):
            role = str(match.lastgroup)
            files = samples.setdefault((match[scope], match[role]), {})
            if role in files:
                listing.rejected.append(Rejection(path, f"second copy of {files[role]}"))
            else:
                files[role] = path
    return samples


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


class Source(ABC):
    """One dataset in its published layout.

    Class attributes:
        name: as used on the command line and in the shards' `dataset` column.
        target_kind: what is known of its depth.
        layout: the expected files, one pattern a line, shown when a folder does not match.
        sizes_may_differ: whether image and target of a good sample may differ in size (the target is then
            resized to the image); otherwise a difference means a damaged sample.
    """

    name: ClassVar[str]
    target_kind: ClassVar[TargetKind]
    layout: ClassVar[str]
    sizes_may_differ: ClassVar[bool] = False

    @abstractmethod
    def list(self, root: Folder) -> Listing:
        """Find every sample below `root`, in a reproducible order, without reading images or depth.

        Returns an empty listing when nothing matches the layout.

        Raises:
            WrongLayout: when the folder is recognised as something else that cannot be read.
        """

    @abstractmethod
    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read one sample at its native resolution.

        Raises:
            BadSample: with the reason, for a damaged or unusable sample.
            OSError: when storage fails; the sample itself may be good.
        """
