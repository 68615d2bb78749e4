"""Bytes in Arrow's memory as they lie there: Arrow's own scalars of binary columns are copies, and large ones
cost as much as what is done with them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa

_OFFSETS = {pa.binary(): np.int32, pa.large_binary(): np.int64}


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column of that type has views."""
    return kind in _OFFSETS


def binary_views(column: pa.Array) -> list[memoryview | None]:
    """Each row's bytes, read-only; None where there are none.

    Args:
        column: of the types `binary` or `large_binary`.
    """
    _, offsets, data = column.buffers()
    whole = memoryview(b"" if data is None else data).cast("B").toreadonly()
    ends = np.frombuffer(offsets, _OFFSETS[column.type])[column.offset : column.offset + len(column) + 1]
    return [
        whole[start:end] if valid else None
        for (start, end), valid in zip(pairwise(ends.tolist()), column.is_valid().to_pylist(), strict=True)
    ]
