"""Parquet files of which every byte that is read is checked: checksums of pages, and a digest of the footer.

Parquet's checksums cover the pages alone. A flipped bit in the footer can rename a column or move its end. So
the footer has its own digest, of the footer with zeros in its place: the file needs no other to be checked.
It also has the digest of all that comes before it, for those who want equal bytes, not only equal rows.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder

_BLANK = b"0" * 64
FOOTER_SEAL = {b"dpt.body": _BLANK, b"dpt.footer": _BLANK}
"""Metadata that a file is written with, so that `seal_footer` finds the places of the digests."""

# Between name and value, two bytes say type and length.
_BODY, _FOOTER = (re.compile(rb"dpt\.%b..([0-9a-f]{64})" % name, re.DOTALL) for name in (b"body", b"footer"))
_MAGIC = b"PAR1"
_TAIL_BYTES = 65_536  # as much as Arrow reads at once


class DamagedShard(UserError):
    """A shard whose bytes are not those that were written; the message names it."""


def seal_footer(path: Path) -> None:
    """Put the digests into the footer of the finished file at `path`, written with `FOOTER_SEAL`."""
    with path.open("r+b") as file:
        start, footer = _footer(file)
        footer = _with(footer, _BODY, _digest_before(file, start))
        footer = _with(footer, _FOOTER, hashlib.sha256(footer).hexdigest().encode())
        file.seek(start)
        file.write(footer)


def has_its_bytes(folder: Folder, name: str) -> bool:
    """Whether the file `name` in a `folder` is, byte for byte, what was written."""
    with folder.open(name) as file:
        try:
            start, footer = _checked_footer(file)
        except pa.ArrowInvalid:
            return False
        place = _BODY.search(footer)
        return place is not None and place[1] == _digest_before(file, start)


def open_parquet(folder: Folder, name: str) -> pq.ParquetFile:
    """The file `name` in a `folder`, whose footer is checked now and whose pages are when they are read.

    Raises ArrowInvalid if the footer is damaged.
    """
    source = folder.fs.open(folder.path_of(name), cache_type="none")
    metadata = _checked_metadata(source)
    # Arrow reads local files itself, best column by column; elsewhere a row group's columns are fetched as
    # one range, so reading ahead would only fetch bytes that are not needed.
    if folder.is_local:
        source.close()
        source = folder.path_of(name)
    return pq.ParquetFile(
        source, metadata=metadata, page_checksum_verification=True, pre_buffer=not folder.is_local
    )


@contextmanager
def naming_damage(folder: Folder, name: str) -> Iterator[None]:
    """A block that reads the shard `name` in a `folder`.

    Raises DamagedShard where Arrow cannot read what is there; what storage does not give may be tried again.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        known = isinstance(error, (pa.ArrowInvalid, pa.ArrowNotImplementedError))
        if not known and not (isinstance(error, OSError) and error.errno is None):
            raise
        raise DamagedShard(
            f"{folder.path_of(name)} is damaged: {' '.join(str(error).split()):.200} "
            "(`dpt inspect` lists what else is; without it and the manifest `dpt prepare` makes it again)"
        ) from error


@contextmanager
def reading_shard(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """The shard `name` in a `folder`, open for reading in the block; raises DamagedShard."""
    with naming_damage(folder, name), open_parquet(folder, name) as file:
        yield file


def _checked_metadata(file: BinaryIO) -> pq.FileMetaData:
    _, footer = _checked_footer(file)
    whole = b"".join((_MAGIC, footer, len(footer).to_bytes(4, "little"), _MAGIC))
    return pq.read_metadata(io.BytesIO(whole))


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Place and bytes of the footer of an open `file`; raises ArrowInvalid if there is none."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    length = int.from_bytes(tail[-8:-4], "little")
    if tail[-4:] != _MAGIC or length > size - 12:
        raise pa.ArrowInvalid("it has no footer")
    start = size - 8 - length
    if length + 8 > len(tail):
        file.seek(start)
        tail = file.read()
    return start, tail[-8 - length : -8]


def _checked_footer(file: BinaryIO) -> tuple[int, bytes]:
    """As `_footer`; raises ArrowInvalid too if it differs from its digest."""
    start, footer = _footer(file)
    place = _FOOTER.search(footer)
    if place is None:
        raise pa.ArrowInvalid("the footer has no digest")
    if place[1] != hashlib.sha256(_with(footer, _FOOTER, _BLANK)).hexdigest().encode():
        raise pa.ArrowInvalid("the footer differs from its digest")
    return start, footer


def _with(footer: bytes, place: re.Pattern[bytes], digest: bytes) -> bytes:
    """A `footer` with another `digest`, 64 hexadecimal digits, at its `place`."""
    found = place.search(footer)
    assert found is not None
    return footer[: found.start(1)] + digest + footer[found.end(1) :]


def _digest_before(file: BinaryIO, end: int) -> bytes:
    """SHA-256 of the first `end` bytes of an open `file`, in hexadecimal."""
    state = hashlib.sha256()
    file.seek(0)
    while end and (piece := file.read(min(end, 1 << 20))):
        state.update(piece)
        end -= len(piece)
    return state.hexdigest().encode()
