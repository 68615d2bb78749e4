"""Rows of prepared datasets by row group: open files and recent row groups are cached, within bounds.

Encoded images and depth are views of Arrow's memory: Arrow's own scalars of binary columns are copies, which
for large ones cost as much as decoding them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_prep.manifest import PreparedDataset
from datasets_prep.storage.sealed_parquet import naming_damage, open_parquet

TRAINING_COLUMNS = ("sample_id", "image", "inverse_depth", "height", "width", "scale")
EVALUATION_COLUMNS = (*TRAINING_COLUMNS, "depth")
_OPEN_FILES = 256
"""Files kept open, with their footers: a pass reads all shards of a dataset at once, in any order."""

_OFFSETS = {pa.binary(): np.int32, pa.large_binary(): np.int64}
"""Type of a binary column → type of its offsets."""


def is_binary(kind: pa.DataType) -> bool:
    """Whether columns of the type `kind` have `binary_views`."""
    return kind in _OFFSETS


def binary_views(column: pa.Array) -> list[memoryview | None]:
    """The bytes of each row of `column`, of type `binary` or `large_binary`; read-only, None for null.

    Arrow stores the rows' bytes without gaps, and n + 1 offsets of their ends: b"ab", b"", b"c" → "abc" and
    0 2 2 3. A slice of a column has the same buffers and an offset in rows.
    """
    _, offsets, data = column.buffers()
    whole = memoryview(b"" if data is None else data).cast("B").toreadonly()
    ends = np.frombuffer(offsets, _OFFSETS[column.type])[column.offset : column.offset + len(column) + 1]
    return [
        whole[start:end] if valid else None
        for (start, end), valid in zip(pairwise(ends.tolist()), column.is_valid().to_pylist(), strict=True)
    ]


class ShardReader:
    """Rows of one split of several prepared datasets, images and inverse depth still encoded.

    Args:
        datasets: as returned by `open_datasets`.
        split: which split.
        columns: which columns.
        cached_bytes: the most bytes of cached row groups (2 to 3 MB each), but at least the newest.

    Attributes:
        row_groups: for each dataset, the number of rows of each of its row groups.
    """

    def __init__(
        self,
        datasets: Sequence[PreparedDataset],
        split: str,
        columns: Sequence[str] = TRAINING_COLUMNS,
        cached_bytes: int = 64 << 20,
    ) -> None:
        self._columns = list(columns)
        self._shards = [(d.folder, d.manifest.split(split)) for d in datasets]
        groups = [[shard.row_groups for shard in shards] for _, shards in self._shards]
        self.row_groups = [list(chain.from_iterable(shards)) for shards in groups]
        self._starts = [np.cumsum([0, *map(len, shards)]) for shards in groups]
        self._files: OrderedDict[tuple[int, int], pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], dict[str, list[Any]]] = OrderedDict()
        self._sizes: dict[tuple[int, int], int] = {}
        self._cached_bytes = cached_bytes

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._close_oldest()

    def row(self, dataset: int, group: int, row: int) -> dict[str, Any]:
        """Row `row` of row group `group` of dataset `dataset`, from 0; encoded bytes are not copied."""
        return {name: values[row] for name, values in self._group(dataset, group).items()}

    def rows(self, dataset: int, group: int) -> list[dict[str, Any]]:
        """All rows of row group `group` of dataset `dataset`."""
        return [self.row(dataset, group, row) for row in range(self.row_groups[dataset][group])]

    def _group(self, dataset: int, group: int) -> dict[str, list[Any]]:
        key = (dataset, group)
        if key not in self._groups:
            # Arrow takes 30 microseconds for `nbytes`, so it is read once.
            batch = self._read(dataset, group)
            columns = {name: batch[name] for name in self._columns}
            self._groups[key] = {
                name: binary_views(column) if is_binary(column.type) else column.to_pylist()
                for name, column in columns.items()
            }
            self._sizes[key] = batch.nbytes
            while len(self._groups) > 1 and sum(self._sizes.values()) > self._cached_bytes:
                del self._sizes[self._groups.popitem(last=False)[0]]
        self._groups.move_to_end(key)
        return self._groups[key]

    def _read(self, dataset: int, group: int) -> pa.RecordBatch:
        shard = int(np.searchsorted(self._starts[dataset], group, side="right")) - 1
        inside = group - int(self._starts[dataset][shard])
        folder, shards = self._shards[dataset]
        with naming_damage(folder, shards[shard].name):
            file = self._file(dataset, shard)
            table = file.read_row_group(inside, columns=self._columns, use_threads=False)
        (batch,) = table.combine_chunks().to_batches()
        return batch

    def _file(self, dataset: int, shard: int) -> pq.ParquetFile:
        key = (dataset, shard)
        if key not in self._files:
            folder, shards = self._shards[dataset]
            self._files[key] = open_parquet(folder, shards[shard].name)
            if len(self._files) > _OPEN_FILES:
                self._close_oldest()
        self._files.move_to_end(key)
        return self._files[key]

    def _close_oldest(self) -> None:
        _, file = self._files.popitem(last=False)
        file.close(force=True)
