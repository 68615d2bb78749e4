"""Finding the evaluation sets of Table 1 (`pipelines.evaluation.sets.ZERO_SHOT`) in folders of raw data.

An average over fewer images than a set has is another number, so an incomplete set is refused unless the user
allows it, and then every table says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from datasets_prep.errors import NotFound, UserError, WrongLayout
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.split_lists import read_lists
from datasets_prep.settings import Split
from datasets_prep.sources import SOURCES
from datasets_prep.sources.base import Rejection
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import existing_folder
from pipelines.evaluation.sets import ZERO_SHOT, ZeroShotSet

SPLIT: Split = "test"
_SHOWN = 3


class IncompleteSet(UserError):
    """An evaluation set with fewer images than expected, or more; the message counts and names them."""


@dataclass(frozen=True, slots=True)
class FoundSet:
    """An evaluation set of Table 1, by its `description`, in the folder `raw` (path or URI).

    Attributes:
        source: its reader in `datasets_prep.sources`.
        samples: its images, in a reproducible order.
        rejected: files that were left out, and why.
        digest: SHA-256 of names and sizes of the samples' files.
    """

    description: ZeroShotSet
    source: str
    raw: str
    samples: tuple[Sample, ...]
    rejected: tuple[Rejection, ...] = field(repr=False)
    digest: str

    @property
    def name(self) -> str:
        """The set's name."""
        return self.description.name

    @property
    def is_complete(self) -> bool:
        """Whether it has the paper's number of images."""
        return len(self.samples) == self.description.images


def find_sets(on: Sequence[str], raw: Sequence[str], lists: Mapping[str, str]) -> list[FoundSet]:
    """Find the evaluation sets named `on`, in the order of Table 1, without reading anything but `lists`.

    These are set → list file. `raw` has `NAME=FOLDER`, or folders with one folder per set; for a single set
    also its own folder.

    Raises:
        UserError: if there is no such set, folder or list, or a folder holds no image of its set.
    """
    for name in (*on, *lists):
        if name not in ZERO_SHOT:
            raise NotFound(f"no evaluation set {name!r}; there are: {', '.join(ZERO_SHOT)}")
    chosen = [name for name in ZERO_SHOT if name in on]
    folders = {name: _folder_of(ZERO_SHOT[name], raw, single=len(chosen) == 1) for name in chosen}
    return [_find(ZERO_SHOT[name], folders[name], lists.get(name)) for name in chosen]


def require_complete(found: Sequence[FoundSet], allow_missing: bool) -> None:
    """Check that the sets `found` have the paper's number of images; fewer are accepted with `allow_missing`.

    Raises:
        IncompleteSet: naming and counting what is missing, set by set.
    """
    problems = []
    for entry in found:
        here, wanted = len(entry.samples), entry.description.images
        if here > wanted or (here < wanted and not allow_missing):
            shown = "; ".join(f"{one.path}: {one.reason}" for one in entry.rejected[:_SHOWN])
            more = ", …" if len(entry.rejected) > _SHOWN else ""
            left_out = f" ({len(entry.rejected)} left out: {shown}{more})" if entry.rejected else ""
            hint = f"; {entry.description.hint}" if entry.description.hint else ""
            problems.append(f"{entry.name}: {here} images are there, the set has {wanted}{left_out}{hint}")
    if problems:
        fewer = all(len(entry.samples) <= entry.description.images for entry in found)
        offer = "\n--allow-missing evaluates what is there, and says so in the table" if fewer else ""
        raise IncompleteSet("\n".join(problems) + offer)


def _folder_of(wanted: ZeroShotSet, raw: Sequence[str], single: bool) -> str:
    """The raw folder of a set."""
    named = [text.partition("=")[2] for text in raw if text.partition("=")[0] == wanted.name and "=" in text]
    if len(named) > 1:
        raise UserError(f"--raw {wanted.name}=… is given twice: {', '.join(named)}")
    if named:
        return named[0]
    names = {wanted.name, *wanted.sources, *wanted.folders}
    plain = [text for text in raw if text.partition("=")[0] not in ZERO_SHOT]
    for text in plain:
        root = existing_folder(text)
        inside = [child for child in root.children() if child.lower().replace("-", "_") in names]
        if len(inside) == 1:
            return (root / inside[0]).uri
        if len(inside) > 1:
            raise UserError(f"{wanted.name}: {text} has {', '.join(inside)}; say which: {wanted.name}=FOLDER")
    if single and len(plain) == 1:
        return plain[0]
    looked = f" in {', '.join(plain)} (looked for {', '.join(sorted(names))})" if plain else ""
    raise NotFound(f"{wanted.name}: no raw folder{looked}; give --raw {wanted.name}=FOLDER")


def _find(wanted: ZeroShotSet, raw: str, given: str | None) -> FoundSet:
    root = existing_folder(raw)
    lists = read_lists({SPLIT: given}) if given is not None else []
    rejected: list[Rejection] = []
    for name in wanted.sources:
        listing = list_samples(SOURCES[name], root, lists)
        samples = tuple(sample for sample in listing.samples if sample.split == SPLIT)
        if samples:
            digest, files = hashlib.sha256(), root.files()
            for sample in samples:
                sizes = sorted((role, path, files[path]) for role, path in sample.files.items())
                digest.update(repr((sample.sample_id, sizes, sample.annotation)).encode())
            left_out = tuple(listing.rejected)
            return FoundSet(wanted, name, root.uri, samples, left_out, digest.hexdigest())
        rejected += listing.rejected
    layouts = " or ".join("; ".join(SOURCES[name].layout.splitlines()) for name in wanted.sources)
    hint = f" ({wanted.hint})" if wanted.hint else ""
    first = "".join(f"; first file left out: {one.path}: {one.reason}" for one in rejected[:1])
    raise WrongLayout(f"no image of {wanted.name} in {root.uri}: expected {layouts}{hint}{first}")
