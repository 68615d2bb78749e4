"""The file listing of a raw dataset, cached beside the shards that are made of it.

Listing millions of objects takes minutes on an object store, and a job is often run several times. The cache
is a Parquet file of paths and sizes that names the folder it lists; its age is that of the file. Without a
time stamp inside, its bytes depend on the raw data alone.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.parquet as pq

from datasets_prep.errors import Note
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing import LISTING_SCHEMA, FileListing

LISTING_NAME = "listing.parquet"

_FOLDER, _DIGEST = b"dpt.folder", b"dpt.sha256"


@dataclass(frozen=True, slots=True)
class CachedListing:
    """All `files` of a folder; `listed_at` is when they were listed, None for just now."""

    files: FileListing
    listed_at: datetime | None


def cached_listing(root: Folder, cache: Folder, refresh: bool) -> CachedListing:
    """The files of `root`: from `cache` unless `refresh` or it holds another folder's, else listed now."""
    cached = None if refresh else _read_listing(root, cache)
    return cached or CachedListing(root.files(), None)


def _read_listing(root: Folder, cache: Folder) -> CachedListing | None:
    if not cache.exists(LISTING_NAME):
        return None
    try:
        with cache.open(LISTING_NAME) as file:
            table = pq.read_table(file)
        metadata = table.schema.metadata or {}
        if metadata.get(_FOLDER, root.uri.encode()) != root.uri.encode():
            return None
        if not table.schema.equals(LISTING_SCHEMA) or metadata.get(_DIGEST) != _digest(table, root):
            raise ValueError("it differs from its digest")
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        line = f"{cache.path_of(LISTING_NAME)} is damaged ({reason:.100}): listing again"
        warnings.warn(line, Note, stacklevel=2)
        return None
    listed_at = cache.fs.modified(cache.path_of(LISTING_NAME))
    return CachedListing(FileListing(table), listed_at.astimezone(timezone.utc))


def cache_listing(files: FileListing, root: Folder, cache: Folder) -> None:
    """Write `files`, the listing of `root`, to the folder `cache`."""
    digest = _digest(files.table, root)
    table = files.table.replace_schema_metadata({_FOLDER: root.uri.encode(), _DIGEST: digest})
    with cache.writing(LISTING_NAME) as path:
        pq.write_table(table, path, compression="zstd")


def _digest(table: pa.Table, root: Folder) -> bytes:
    """SHA-256 of a listing of `root`, in hexadecimal: the checksums of Parquet's pages do not cover all."""
    state = hashlib.sha256(root.uri.encode())
    for name, kind in (("path", pa.large_string()), ("bytes", pa.int64())):
        column = table.column(name).cast(kind).combine_chunks()
        # Arrow's own format, of a column without gaps, is a function of the values.
        batch = pa.record_batch([pa.concat_arrays([column])], [name])
        state.update(batch.serialize())
    return state.hexdigest().encode()
