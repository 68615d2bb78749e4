"""Official splits: list files of the authors, found in a dataset's folder or given by path.

A list names samples, one a line, in whatever form its authors chose; the source knows the form
(`Source.listed`). This file knows the rest: how lists are found and parsed, and what becomes of samples.

* A split that has a list is exactly that list. Samples that no list names go to the splits without one, by
  the folder they lie in; those that have no such folder are left out where there is a list for `train`, and
  are training samples where there is only one for `val`.
* Nothing is ever opened by a list's word: its entries are only compared with what was found in the folder.
  An entry that points outside of it is refused all the same, and counted with those that name nothing.

Lists are text (any line ends, trailing blanks and tabs, lines that start with `#`) or, as MegaDepth's, a
pickled Python list of strings, which is read without loading any class.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from datasets_prep.errors import NotFound, WrongLayout
from datasets_prep.settings import Split
from datasets_prep.sources.base import Listing, Rejection, Source
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.storage.folder import Folder

MAX_LIST_BYTES = 24 * 2**20
"""Longer files are no lists: the largest known, of IRS, has 13 MB. In memory a list takes up to fifty times
its size."""

MAX_LIST_LINES = 1_000_000
"""A list of more lines is none either: the longest known, of MegaDepth, has 130,000."""

_LEFT_OUT = ""
_PICKLE_MARKS = (b"(lp", b"]q\x00", b"\x80")


@dataclass(frozen=True, slots=True)
class SplitList:
    """One list file: `where` is its path or URI, `entries` the columns of each line that is not empty."""

    split: str
    where: str
    entries: list[tuple[str, ...]]
    digest: str


def list_samples(source: Source, root: Folder, lists: Sequence[SplitList] = ()) -> Listing:
    """All samples of a folder with their official splits.

    Args:
        lists: those that the user gave; if there are none, those that lie in the folder are taken.

    Raises:
        WrongLayout: if the folder is none of this source, or a given list names none of its samples.
    """
    listing = source.list(root)
    if not listing.samples:
        return listing
    found = lists or list(_lists_in(source, root))
    if not found and not source.only_listed:
        return listing
    return with_lists(source, listing, found, strict=bool(lists))


def read_lists(paths: Mapping[Split, str | list[str]]) -> list[SplitList]:
    """Read the lists that a user gave: split → path or URI, or several of them.

    Raises:
        NotFound: if there is no such file.
        WrongLayout: if it is no list.
    """
    given = []
    for split, value in sorted(paths.items()):
        for path in [value] if isinstance(value, str) else value:
            folder = Folder(posixpath.dirname(path) or ".")
            name = posixpath.basename(path)
            try:
                data = folder.read_bytes(name, most=MAX_LIST_BYTES)
            except (FileNotFoundError, IsADirectoryError) as error:
                raise NotFound(f"lists.{split}: no such file: {path}") from error
            given.append(SplitList(split, path, parse_list(data, path), hashlib.sha256(data).hexdigest()))
    return given


def parse_list(data: bytes, where: str) -> list[tuple[str, ...]]:
    """The columns of each entry of a list file.

    Raises:
        WrongLayout: if it is longer than any list, or a pickle of something else than strings.
    """
    if len(data) > MAX_LIST_BYTES:
        raise WrongLayout(f"{where} has {len(data)} bytes, which is no list file")
    if data.startswith(_PICKLE_MARKS):
        return [(text.strip(),) for text in _strings_of_pickle(data, where)]
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    if len(lines) > MAX_LIST_LINES:
        raise WrongLayout(f"{where} has {len(lines)} lines, which is no list file")
    return [tuple(columns) for line in lines if (columns := line.split()) and columns[0][0] != "#"]


class _PlainUnpickler(pickle._Unpickler):
    """Knows no class and no function, so that nothing can be called.

    Python's own interpreter of pickles, not the one in C: that makes as many places for values to come back
    to as the file says, four billion if it likes.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {f'{module}.{name}'!r:.80}")


def _strings_of_pickle(data: bytes, where: str) -> list[str]:
    try:
        content: Any = _PlainUnpickler(io.BytesIO(data), encoding="latin-1").load()
    except Exception as error:  # damaged pickles raise whatever they run into
        raise WrongLayout(f"{where} is a pickle that is no plain list of strings: {error!s:.200}") from error
    if not isinstance(content, list) or not all(isinstance(entry, str) for entry in content):
        raise WrongLayout(f"{where} is a pickle that is no plain list of strings")
    # A few bytes can name one long text many times.
    if (length := sum(map(len, content))) > MAX_LIST_BYTES:
        raise WrongLayout(f"{where} unfolds to {length} characters, which is no list file")
    return content


def _lists_in(source: Source, root: Folder) -> Iterator[SplitList]:
    for path, size in root.files().items():
        split = source.split_of_list(path)
        if split is not None and size <= MAX_LIST_BYTES:
            data = root.read_bytes(path)
            yield SplitList(split, path, parse_list(data, path), hashlib.sha256(data).hexdigest())


def with_lists(source: Source, listing: Listing, lists: Sequence[SplitList], strict: bool = False) -> Listing:
    """Give samples the split that lists say, and leave out those that no split is left for.

    Args:
        strict: whether a list that names no sample of the listing is an error rather than a rejection.

    Raises:
        WrongLayout: see `strict`.
    """
    known = {source.list_key(sample) for sample in listing.samples}
    splits: dict[str, str] = {}
    rejected = list(listing.rejected)
    listed: set[str] = set()
    for given in lists:
        unknown = _take_entries(source, given, known, splits)
        matched = len(unknown) < len(given.entries)
        if strict and not matched:
            first = f", the first: {' '.join(unknown[0])[:80]!r}" if unknown else ""
            raise WrongLayout(
                f"{given.where}: none of its {len(unknown)} entries names a {source.name} sample{first}"
            )
        if matched:
            listed.add(given.split)
        if unknown:
            # The user's own path says nothing of the dataset, and a version must not depend on it.
            where = posixpath.basename(given.where) if strict else given.where
            rejected.append(Rejection(where, _reason(unknown, len(given.entries))))
    samples, dropped = _assign(source, listing.samples, splits, listed)
    if dropped:
        reason = f"{len(dropped)} samples are in no list, the first: {dropped[0].sample_id}"
        rejected.append(Rejection(dropped[0].files["image"], reason))
    return Listing(samples, rejected)


def _take_entries(
    source: Source, given: SplitList, known: set[str], splits: dict[str, str]
) -> list[tuple[str, ...]]:
    """Note what a list says of the known samples; returns its other entries."""
    unknown = []
    for columns in given.entries:
        safe = _inside(columns[0], source.lists_start_with_slash)
        key = source.listed((safe, *columns[1:])) if safe else None
        if key is not None and key in known:
            splits[key] = given.split
        else:
            unknown.append(columns)
    return unknown


def _inside(path: str, slash_allowed: bool) -> str | None:
    """A list's path, normalised, or None if it points out of the dataset's folder."""
    relative = path.lstrip("/") if slash_allowed else path
    normal = posixpath.normpath(relative)
    outside = normal.startswith("/") or normal == ".." or normal.startswith("../") or "\\" in normal
    return None if outside or not relative else normal


def _reason(unknown: list[tuple[str, ...]], entries: int) -> str:
    first = " ".join(unknown[0])[:80]
    return f"{len(unknown)} of {entries} entries name no sample that is here, the first: {first!r}"


def _assign(
    source: Source, samples: Sequence[Sample], splits: Mapping[str, str], listed: set[str]
) -> tuple[Samples, Samples]:
    """Samples with their splits, and those that are left out."""
    kept, dropped = Samples(), Samples()
    for sample in samples:
        split = splits.get(source.list_key(sample))
        if split is None:
            split = _LEFT_OUT if source.only_listed else _unlisted_split(sample.split, listed)
        if split == _LEFT_OUT:
            dropped.append(sample)
        else:
            kept.append(sample if split == sample.split else replace(sample, split=split))
    return kept, dropped


def _unlisted_split(split: str | None, listed: set[str]) -> str | None:
    """The split of a sample that no list names, given that of its folder."""
    if split is not None:
        return _LEFT_OUT if split in listed else split
    if "train" in listed:
        return _LEFT_OUT
    return "train" if "val" in listed else None
