"""Zip and tar archives, read in place as folders, wherever they lie.

An archive's address is a chained URI of fsspec: `zip://raw::s3://bucket/robot.zip` is the folder `raw` in it.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import fsspec
from fsspec.archive import AbstractArchiveFileSystem

from datasets_prep.errors import BadSample, NotFound, UserError
from datasets_prep.storage.pieces import FilePieces
from datasets_prep.storage.retries import StorageFailed, persistently

MAX_COMPRESSED_TAR_BYTES = 2**28
"""Larger compressed tars are refused: each of their files is found by unpacking all that lies before it."""

_NAME = re.compile(r"(?i).*\.(?:(?P<zip>zip)|(?P<tar>tar)|t(?:ar\.)?(?P<packed>gz|bz2|xz))")
_COMPRESSION = {"gz": "gzip", "bz2": "bz2", "xz": "xz"}  # ending → fsspec's name
_BUFFER_BYTES = 2**20
_BLOCK = 512  # bytes of a tar's header; a block of zeros ends the archive


def archive_uri(fs: Any, path: str, uri: str) -> str | None:
    """The address of the root of the archive at `path` of the file system `fs`, whose own address is `uri`.

    None if the name is not one of an archive, or it is not a file. Raises UserError if it is a compressed tar
    of more than `MAX_COMPRESSED_TAR_BYTES`.
    """
    match = _NAME.fullmatch(path)
    if match is None or not persistently("found", fs.isfile, path):
        return None
    if match["packed"] and (size := fs.size(path)) > MAX_COMPRESSED_TAR_BYTES:
        most = f"compressed tars of at most {MAX_COMPRESSED_TAR_BYTES // 2**20} MiB are read"
        raise UserError(f"{uri} has {size / 2**20:.0f} MiB; {most}: unpack it, or make it a .tar or .zip")
    return f"{'zip' if match['zip'] else 'tar'}://::{uri}"


def open_archive(kind: str, fs: Any, path: str) -> AbstractArchiveFileSystem:
    """The archive at `path` of the file system `fs`, opened once per process while it stays the same.

    `kind` is `zip` or `tar`. Raises NotFound if it does not exist; UserError if it is damaged.
    """
    try:
        return _opened(kind, fs, path, persistently("read", fs.ukey, path))
    except FileNotFoundError as error:
        raise NotFound(f"no such archive: {path}") from error


@lru_cache(maxsize=4)
def _opened(kind: str, fs: Any, path: str, state: str) -> AbstractArchiveFileSystem:
    """The archive in its `state`, fsspec's key of size and time."""
    match = _NAME.fullmatch(path)
    packed = {"compression": _COMPRESSION[match["packed"].lower()]} if match and match["packed"] else {}
    try:
        file = io.BufferedReader(FilePieces(fs, path), _BUFFER_BYTES)
        archive: AbstractArchiveFileSystem = fsspec.get_filesystem_class(kind)(file, **packed)
        if kind == "tar":
            _require_end(archive)
    except StorageFailed:
        raise
    except Exception as error:  # the libraries raise anything from zipfile.BadZipFile to lzma.LZMAError
        raise UserError(f"{path} is not a {kind} archive, or damaged: {error}") from error
    return archive


def _require_end(archive: Any) -> None:
    """Python reads a tar up to the first header that is damaged, and says nothing."""
    archive.fo.seek(archive.tar.offset)
    block = archive.fo.read(_BLOCK)
    if len(block) < _BLOCK or block.strip(b"\0"):
        raise tarfile.ReadError(f"breaks off at byte {archive.tar.offset}")


@contextmanager
def damage_of_a_file(path: str) -> Iterator[None]:
    """Turn any error in reading the file `path` of an archive, but storage's, into a BadSample."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError, StorageFailed):
        raise
    except Exception as error:  # as above; also RuntimeError if it is encrypted
        raise BadSample(f"{path} in the archive cannot be read: {error}") from error
