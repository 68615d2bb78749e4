"""The six evaluation sets of Table 1: which images, which cap, how images go through the network; and finding
them in folders of raw data.

The protocol is that of Ranftl et al., TPAMI 2020, section 6, which section 4.1 of the DPT paper adopts. An
average over fewer images than a set has is another number, so a set that is not whole is refused unless that
is asked for, and then says so wherever it is printed.
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
from datasets_prep.sources.base import Listing, Rejection
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder, existing_folder
from datasets_prep.storage.listing import FileListing

SPLIT: Split = "test"
_SHOWN = 3


class IncompleteSet(UserError):
    """An evaluation set with fewer images than it should have, or more; the message counts and names them."""


@dataclass(frozen=True, slots=True)
class ZeroShotSet:
    """One evaluation set.

    Attributes:
        name: on the command line.
        sources: who can read it, the best first (`datasets_prep.sources`).
        images: how many it has.
        cap: metres; what is as far does not count. None where the ground truth is the order of two points.
        rule: which side of the image is the network's (`transforms.network_size`): the longer one, but on
            KITTI, where images would become too small, the shorter.
        border: pixels at each side of the ground truth that do not count.
        folders: names that its raw folder may have, besides those of the sources.
        hint: what is usually missing when images are.
    """

    name: str
    sources: tuple[str, ...]
    images: int
    cap: float | None
    rule: str = "upper_bound"
    border: int = 0
    folders: tuple[str, ...] = ()
    hint: str = ""


SETS: dict[str, ZeroShotSet] = {
    entry.name: entry
    for entry in (
        ZeroShotSet("diw", ("diw",), 74_441, None, folders=("depth_in_the_wild",)),
        ZeroShotSet("eth3d", ("eth3d",), 454, 72.0),
        ZeroShotSet("sintel", ("sintel",), 1_064, 72.0, folders=("mpi_sintel",)),
        ZeroShotSet(
            "kitti",
            ("kitti_161",),
            161,
            80.0,
            rule="lower_bound",
            hint="the 161 are those of the official val folder that the Eigen test list names: give it as "
            "lists.kitti=FILE, or put it into the folder under a name with `test`",
        ),
        # Raw depth ends far inside of this border; photos have a white frame there.
        ZeroShotSet("nyu", ("nyuv2_labelled", "nyuv2"), 654, 10.0, border=8, folders=("nyu", "nyu_depth_v2")),
        ZeroShotSet(
            "tum",
            ("tum",),
            1_815,
            10.0,
            folders=("tum_rgbd",),
            hint="the 1,815 are the frames of tum_hdf5.tgz; of whole sequences choose with lists.tum=FILE",
        ),
    )
}
"""In the order of Table 1."""


@dataclass(frozen=True, slots=True)
class FoundSet:
    """An evaluation set in a folder.

    Attributes:
        description: which set it is.
        source: who reads it.
        raw: the folder's address.
        samples: its images, in a reproducible order.
        rejected: files that were left out, and why.
        digest: of the listing: names and sizes of the samples' files.
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


def find_sets(on: Sequence[str], raw: Sequence[str], lists: Mapping[str, str]) -> list[FoundSet]:
    """Find evaluation sets in raw folders; nothing but lists is read.

    Args:
        on: names of sets.
        raw: `NAME=FOLDER`, or a folder that holds a folder a set; for a single set also its own folder.
        lists: set → list file.

    Returns:
        the sets in the order of Table 1.

    Raises:
        UserError: if there is no such set, folder or list, or a folder holds no image of its set.
    """
    for name in (*on, *lists):
        if name not in SETS:
            raise NotFound(f"no evaluation set {name!r}; there are: {', '.join(SETS)}")
    chosen = [name for name in SETS if name in on]
    folders = {name: _folder_of(SETS[name], raw, single=len(chosen) == 1) for name in chosen}
    return [_find(SETS[name], folders[name], lists.get(name)) for name in chosen]


def require_complete(found: Sequence[FoundSet], allow_missing: bool) -> None:
    """Refuse sets that have other images than the paper's.

    Args:
        allow_missing: fewer images are fine; more never are, for then it is another set.

    Raises:
        IncompleteSet: naming and counting what is missing, set by set.
    """
    problems = []
    for entry in found:
        here, wanted = len(entry.samples), entry.description.images
        if here > wanted or (here < wanted and not allow_missing):
            hint = f"; {entry.description.hint}" if entry.description.hint else ""
            problems.append(
                f"{entry.name}: {here} images are there, the set has {wanted}{_left_out(entry)}{hint}"
            )
    if problems:
        fewer = all(len(entry.samples) <= entry.description.images for entry in found)
        offer = "\n--allow-missing evaluates what is there, and says so in the table" if fewer else ""
        raise IncompleteSet("\n".join(problems) + offer)


def _left_out(entry: FoundSet) -> str:
    if not entry.rejected:
        return ""
    shown = "; ".join(f"{one.path}: {one.reason}" for one in entry.rejected[:_SHOWN])
    more = ", …" if len(entry.rejected) > _SHOWN else ""
    return f" ({len(entry.rejected)} left out: {shown}{more})"


def _folder_of(wanted: ZeroShotSet, raw: Sequence[str], single: bool) -> str:
    """The raw folder of a set."""
    named = [text.partition("=")[2] for text in raw if text.partition("=")[0] == wanted.name and "=" in text]
    if len(named) > 1:
        raise UserError(f"--raw {wanted.name}=… is given twice: {', '.join(named)}")
    if named:
        return named[0]
    names = {wanted.name, *wanted.sources, *wanted.folders}
    plain = [text for text in raw if text.partition("=")[0] not in SETS]
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
            digest = _digest(samples, root.files())
            return FoundSet(wanted, name, root.uri, samples, tuple(listing.rejected), digest)
        rejected += listing.rejected
    raise WrongLayout(_nothing_there(wanted, root, Listing(rejected=rejected)))


def _nothing_there(wanted: ZeroShotSet, root: Folder, listing: Listing) -> str:
    layouts = " or ".join("; ".join(SOURCES[name].layout.splitlines()) for name in wanted.sources)
    first = [f"; first file left out: {one.path}: {one.reason}" for one in listing.rejected[:1]]
    hint = f" ({wanted.hint})" if wanted.hint else ""
    return f"no image of {wanted.name} in {root.uri}: expected {layouts}{hint}{''.join(first)}"


def _digest(samples: Sequence[Sample], files: FileListing) -> str:
    state = hashlib.sha256()
    for sample in samples:
        sizes = sorted((role, path, files[path]) for role, path in sample.files.items())
        state.update(repr((sample.sample_id, sizes, sample.annotation)).encode())
    return state.hexdigest()
