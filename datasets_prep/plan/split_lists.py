"""Official splits: list files of the authors, found in a dataset's folder or given by path.

A list names samples, one per line, in the form that its authors chose; the source knows the form
(`Source.listed`). This file knows the rest: how lists are found and parsed, and which split a sample gets.

* A split that has a list consists of exactly the samples of that list. Samples that no list names go to the
  splits without a list, by the folder they lie in; those without such a folder are left out if there is a
  list for `train`, and are training samples if there is only one for `val`.
* No path of a list is ever opened: entries are only compared with the files that were found in the folder.
  An entry that points outside the folder is refused and counted with those that name no sample.

Lists are text (UTF-8 or UTF-16, any line ends, trailing blanks and tabs, comment lines that start with `#`)
or, as MegaDepth's, a pickled list of strings (`datasets_prep.formats.pickles`).
"""

import hashlib
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets_prep.errors import NotFound, WrongLayout
from datasets_prep.formats.pickles import load_inert
from datasets_prep.settings import Split
from datasets_prep.sources.base import Listing, Rejection, Source
from datasets_prep.sources.samples import Samples
from datasets_prep.storage.folder import Folder, text_of

MAX_LIST_BYTES = 24 * 2**20
"""Longer files are refused: the largest known list, of IRS, has 13 MB. In memory a list takes up to fifty
times its size."""

MAX_LIST_LINES = 1_000_000
"""Lists of more lines are refused: the longest known, of MegaDepth, has 130,000."""

_LEFT_OUT = ""
_PICKLE_MARKS = (b"(lp", b"]q\x00", b"\x80")


@dataclass(frozen=True, slots=True)
class SplitList:
    """One list file for a `split`.

    `where` is its path or URI, `entries` are its lines without the empty ones, `digest` is the hexadecimal
    SHA-256 of its content.
    """

    split: str
    where: str
    entries: list[str]
    digest: str


def read_lists(paths: Mapping[Split, str | list[str]]) -> list[SplitList]:
    """Read the lists that a user gave: `paths` maps splits to a path or URI, or to several.

    Raises NotFound if a file does not exist; UserError or WrongLayout if it is not a list.
    """
    given = []
    for split, value in sorted(paths.items()):
        for path in [value] if isinstance(value, str) else value:
            folder = Folder(posixpath.dirname(path) or ".")
            name = posixpath.basename(path)
            try:
                data = folder.read_bytes(name, most=MAX_LIST_BYTES)
            except (FileNotFoundError, IsADirectoryError) as error:
                if isinstance(error, IsADirectoryError) or (folder / name).children():
                    expected = "expected a file, one sample a line"
                    raise NotFound(f"lists.{split}: {path!r} is a folder; {expected}") from error
                raise NotFound(f"lists.{split}: no such file: {path!r}") from error
            given.append(SplitList(split, path, parse_list(data, path), hashlib.sha256(data).hexdigest()))
    return given


def parse_list(data: bytes, where: str) -> list[str]:
    """The lines of a list file with the content `data` that are not empty; errors name it `where`.

    Raises UserError if it is not text; WrongLayout if it is longer than any list, or a pickle of something
    other than strings.
    """
    if len(data) > MAX_LIST_BYTES:
        raise WrongLayout(f"{where} has {len(data)} bytes, which is not a list file")
    if data.startswith(_PICKLE_MARKS):
        return [text for line in _strings_of_pickle(data, where) if (text := line.strip())]
    lines = text_of(data, where).splitlines()
    if len(lines) > MAX_LIST_LINES:
        raise WrongLayout(f"{where} has {len(lines)} lines, which is not a list file")
    return [stripped for line in lines if (stripped := line.strip())]


def _strings_of_pickle(data: bytes, where: str) -> list[str]:
    try:
        content: Any = load_inert(data)
    except Exception as error:  # a damaged pickle may raise anything
        raise WrongLayout(f"{where} is a pickle but not a plain list of strings: {error!s:.200}") from error
    if not isinstance(content, list) or not all(isinstance(entry, str) for entry in content):
        raise WrongLayout(f"{where} is a pickle but not a plain list of strings")
    # A few bytes can name one long text many times.
    if (length := sum(map(len, content))) > MAX_LIST_BYTES:
        raise WrongLayout(f"{where} unfolds to {length} characters, which is not a list file")
    return content


def lists_in(source: Source, root: Folder) -> Iterator[SplitList]:
    """The authors' lists of `source` that lie in the dataset root `root`."""
    for path, size in root.files().items():
        split = source.split_of_list(path)
        if split is not None and (size <= MAX_LIST_BYTES or source.lists_are_exact):
            try:
                data = root.read_bytes(path, most=MAX_LIST_BYTES)
            except FileNotFoundError as error:
                raise NotFound(f"{root.uri}/{path} is a link to a file that does not exist") from error
            yield SplitList(split, path, parse_list(data, path), hashlib.sha256(data).hexdigest())


def with_lists(source: Source, listing: Listing, lists: Sequence[SplitList], strict: bool = False) -> Listing:
    """Give the samples of `source` in `listing` splits by `lists`; leave out those for which none remains.

    A list that names no sample is a rejection, or, if `strict`, a WrongLayout. So is each line that names no
    sample where lists are exact (`Source.lists_are_exact`), and a sample in the lists of two splits.
    """
    read = source.reader_of_lines({source.list_key(sample) for sample in listing.samples})
    listed_in: dict[str, SplitList] = {}
    rejected = list(listing.rejected)
    listed: set[str] = set()
    for given in lists:
        named, unknown = _entries(read, given)
        _require_names(source, given, len(named), unknown, strict)
        for key in named:
            if listed_in.setdefault(key, given).split != given.split:
                raise WrongLayout(_in_two_lists(key, listed_in[key], given, read))
        if named:
            listed.add(given.split)
        if unknown:
            # Where the user's own file lies must not decide the version.
            where = posixpath.basename(given.where) if strict else given.where
            share = f"{len(unknown)} of {len(named) + len(unknown)} entries name no sample that is here"
            rejected.append(Rejection(where, f"{share}, the first: {unknown[0]}"))
    splits = {key: given.split for key, given in listed_in.items()}
    samples, dropped = _assign(source, listing.samples, splits, listed)
    if source.lists_are_exact:
        rejected += [Rejection(sample.files["image"], "in no list") for sample in dropped]
    elif unlisted := next(iter(dropped), None):
        reason = f"{len(dropped)} samples are in no list, the first: {unlisted.sample_id}"
        rejected.append(Rejection(unlisted.files["image"], reason))
    return replace(listing, samples=samples, rejected=rejected)


_LineReader = Callable[[str], Sequence[str]]


def _entries(read: _LineReader, given: SplitList) -> tuple[list[str], list[str]]:
    """The keys of the samples that a list names; and its other lines without comments, quoted."""
    named, unknown = [], []
    for line in given.entries:
        keys = read(line)
        if len(keys) == 1:
            named.append(keys[0])
        elif not line.startswith("#"):
            unknown.append(f"{line[:80]!r}" + " (more than one has it)" * bool(keys))
    return named, unknown


def _require_names(source: Source, given: SplitList, named: int, unknown: list[str], strict: bool) -> None:
    """Refuse a list that names no sample, or, where lists are exact, with a line that doesn't name one."""
    if source.lists_are_exact:
        if not named and not unknown:
            raise WrongLayout(f"{given.where} names no sample: it is empty")
        if unknown:
            share = f"{len(unknown)} of {named + len(unknown)} lines name no sample that is here"
            first = ", ".join(unknown[:3])
            remedy = "remove them, or write paths of images that have depth, without images/"
            raise WrongLayout(f"{given.where}: {share}, the first: {first}; {remedy}")
    elif strict and not named:
        first_line = f", the first: {unknown[0]}" if unknown else ""
        none = f"none of its {len(unknown)} entries names a {source.name} sample"
        raise WrongLayout(f"{given.where}: {none}{first_line}")


def _in_two_lists(key: str, first: SplitList, second: SplitList, read: _LineReader) -> str:
    both = {*_entries(read, first)[0]} & {*_entries(read, second)[0]}
    return f"{len(both)} samples are in two lists, such as {key!r}: {first.where} and {second.where}"


def _assign(
    source: Source, samples: Samples, splits: Mapping[str, str], listed: set[str]
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
    """The split of a sample that no list names, given the split of its folder."""
    if split is not None:
        return _LEFT_OUT if split in listed else split
    if "train" in listed:
        return _LEFT_OUT
    return "train" if "val" in listed else None
