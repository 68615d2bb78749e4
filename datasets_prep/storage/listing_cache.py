"""The file listing of a raw dataset, kept beside what is made of it.

Listing millions of objects takes minutes on an object store, and a job is often run several times. The kept
listing is a Parquet file of paths and sizes; it says which folder it is of, and its own age is that of the
file. Without a time in it, its bytes depend on the raw data alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.parquet as pq

from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing import LISTING_SCHEMA, FileListing

LISTING_NAME = "listing.parquet"

_FOLDER = b"dpt.folder"


@dataclass(frozen=True, slots=True)
class CachedListing:
    """All files of a folder; `listed_at` is when they were listed, None for just now."""

    files: FileListing
    listed_at: datetime | None


def list_or_recall(root: Folder, kept_in: Folder, refresh: bool) -> CachedListing:
    """The files of `root`, from `kept_in`/listing.parquet if that is of the same folder.

    Args:
        refresh: list again, whatever is kept.
    """
    kept = None if refresh else recall(root, kept_in)
    return kept or CachedListing(root.files(), None)


def recall(root: Folder, kept_in: Folder) -> CachedListing | None:
    """The kept listing, or None if there is none of that folder."""
    if not kept_in.exists(LISTING_NAME):
        return None
    path = kept_in.path_of(LISTING_NAME)
    try:
        with kept_in.fs.open(path) as file:
            table = pq.read_table(file)
    except pa.ArrowInvalid:  # damaged: list again
        return None
    metadata = table.schema.metadata or {}
    if metadata.get(_FOLDER) != root.uri.encode() or not table.schema.equals(LISTING_SCHEMA):
        return None
    listed_at = kept_in.fs.modified(path)
    return CachedListing(FileListing(table), listed_at.astimezone(timezone.utc))


def keep(files: FileListing, root: Folder, keep_in: Folder) -> None:
    """Write the listing of `root` to `keep_in`."""
    table = files.table.replace_schema_metadata({_FOLDER: root.uri.encode()})
    with keep_in.writing(LISTING_NAME) as path:
        pq.write_table(table, path, compression="zstd")
