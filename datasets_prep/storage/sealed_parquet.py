"""Parquet files of which every byte that is read is checked: checksums of pages, and a digest of the footer.

Parquet's checksums cover the pages alone. A flipped bit in the footer can rename a column or move its end. So
the footer has its own digest, of the footer with zeros in its place: the file needs no other to be checked.
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

FOOTER_SEAL = {b"dpt.footer": b"0" * 64}
"""Metadata that a file is written with, so that `seal_footer` finds its place."""

_PLACE = re.compile(rb"dpt\.footer..([0-9a-f]{64})", re.DOTALL)  # between them, two bytes say type and length
_MAGIC = b"PAR1"
_TAIL_BYTES = 65_536  # as much as Arrow reads at once


class DamagedShard(UserError):
    """A shard whose bytes are not those that were written; the message names it."""


def seal_footer(path: Path) -> None:
    """Put the digest into the footer of the finished file at `path`, written with `FOOTER_SEAL`."""
    with path.open("r+b") as file:
        start, footer = _footer(file)
        place, digest = _digest(footer)
        file.seek(start + place.start(1))
        file.write(digest)


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
    _, footer = _footer(file)
    place, digest = _digest(footer)
    if place[1] != digest:
        raise pa.ArrowInvalid("the footer differs from its digest")
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


def _digest(footer: bytes) -> tuple[re.Match[bytes], bytes]:
    """Where the digest is in a `footer`, and what it should be, in hexadecimal; raises ArrowInvalid."""
    place = _PLACE.search(footer)
    if place is None:
        raise pa.ArrowInvalid("the footer has no digest")
    blank = footer[: place.start(1)] + b"0" * 64 + footer[place.end(1) :]
    return place, hashlib.sha256(blank).hexdigest().encode()
