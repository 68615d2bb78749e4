"""One shard file: rows in a Parquet file of small row groups, and its description for the manifest.

The footer names the plan that the file belongs to and the samples that were left out, so that a finished
shard is recognised by its name and footer alone.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets_prep.manifest import NotADataset
from datasets_prep.schema import ROW_GROUP_ROWS, SCHEMA
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import StorageFailed

ROW_GROUP_BYTES = 16 * 2**20
"""A row group of large rows, such as evaluation rows at native resolution, is closed early at this size:
writers and readers hold one row group in memory."""

AVERAGED_COLUMNS = ("valid_share", "sky_share", "inverse_depth_median", "agreement")
"""Columns whose means are in the manifest, if the shards have them."""

_FOOTER_PLAN = b"dpt.plan"
_FOOTER_QUARANTINE = b"dpt.quarantine"
_FOOTER_NOTES = b"dpt.notes"
_BLOB_COLUMNS = frozenset(field.name for field in SCHEMA if pa.types.is_binary(field.type))
_READ_BYTES = 2**20

QuarantineEntry = dict[str, str]
"""`sample_id`, `source_path` and `reason` of a sample that was left out."""


class ShardWriter:
    """Collects a shard's rows of a `schema` for `writer`; see `writing_shard`.

    Its `quarantine` lists samples that are left out, its `notes` count those used that something was done to.
    """

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self.quarantine: list[QuarantineEntry] = []
        self.notes: Counter[str] = Counter()
        self._writer, self._schema = writer, schema
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add `row` of the shard's schema."""
        self._rows.append(row)
        self._bytes += sum(len(row[name]) for name in _BLOB_COLUMNS if row.get(name) is not None)
        if len(self._rows) == ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self.close_row_group()

    def close_row_group(self) -> None:
        """Write the rows collected so far."""
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._bytes = [], 0


@contextmanager
def writing_shard(path: Path, version: str, schema: pa.Schema = SCHEMA) -> Iterator[ShardWriter]:
    """Write a shard file of `schema` at `path` for the plan `version`; it is complete when the block ends."""
    with pq.ParquetWriter(
        path,
        schema,
        # The large columns are compressed already; a second pass would cost time and save nothing.
        compression={name: "none" if name in _BLOB_COLUMNS else "zstd" for name in schema.names},
        use_dictionary=["dataset", "split", "target_kind"],
        write_statistics=[name for name in schema.names if name not in _BLOB_COLUMNS],
        write_page_checksum=True,
    ) as writer:
        shard = ShardWriter(writer, schema)
        yield shard
        shard.close_row_group()
        writer.add_key_value_metadata(
            {
                _FOOTER_PLAN: version,
                _FOOTER_QUARANTINE: json.dumps(shard.quarantine),
                _FOOTER_NOTES: json.dumps(shard.notes, sort_keys=True),
            }
        )


def is_finished_shard(folder: Folder, name: str, version: str) -> bool:
    """Whether the shard `name` of the plan `version` exists in `folder`, undamaged.

    Raises NotADataset if it exists but belongs to another plan.
    """
    if not folder.exists(name):
        return False
    try:
        with folder.open(name) as file:
            shard = pq.ParquetFile(file, page_checksum_verification=True)
            metadata = shard.metadata.metadata or {}
            for group in range(shard.num_row_groups):  # only what is read is checked
                shard.read_row_group(group)
    except (pa.ArrowException, OSError, ValueError) as error:  # damaged since it was written: make it again
        if isinstance(error, StorageFailed):
            raise
        return False
    if metadata.get(_FOOTER_PLAN) != version.encode():
        raise NotADataset(f"{folder.path_of(name)} belongs to another plan; remove it and run again")
    return True


def describe_shard(file: BinaryIO) -> dict[str, Any]:
    """The description of a finished shard for the manifest, from its open `file`.

    Returns `rows`, `row_groups` (rows of each), `bytes`, `sha256`, `sums` (column → sum and count of its
    non-null values), `quarantine` and `notes` (message → number of samples).
    """
    size, digest = digest_file(file)
    parquet = pq.ParquetFile(file)
    metadata = parquet.metadata
    averaged = [name for name in AVERAGED_COLUMNS if name in parquet.schema_arrow.names]
    columns = parquet.read(averaged)
    return {
        "rows": metadata.num_rows,
        "row_groups": [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)],
        "bytes": size,
        "sha256": digest,
        "sums": {name: _sum_and_count(columns.column(name)) for name in averaged},
        "quarantine": json.loads(metadata.metadata[_FOOTER_QUARANTINE]),
        "notes": json.loads(metadata.metadata.get(_FOOTER_NOTES, b"{}")),
    }


def _sum_and_count(column: pa.ChunkedArray) -> tuple[float, int]:
    values = pc.drop_null(column).cast(pa.float64())
    return float(pc.sum(values, min_count=0).as_py()), len(values)


def digest_file(file: BinaryIO) -> tuple[int, str]:
    """Size and SHA-256 (hexadecimal) of an open `file`, read once in small pieces."""
    state, size = hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(_READ_BYTES):
        state.update(piece)
        size += len(piece)
    file.seek(0)
    return size, state.hexdigest()
