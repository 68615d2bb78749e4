"""Views of binary columns are the columns' own bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.loading.shard_reader import binary_views, is_binary


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_rows_lie_where_the_column_has_them(kind: pa.DataType) -> None:
    column = pa.array([b"out of sight", b"one", None, b"", b"two words", b"after"], kind)[1:5]
    assert is_binary(kind)
    views = binary_views(column)
    assert [None if view is None else bytes(view) for view in views] == [b"one", None, b"", b"two words"]
    start = column.buffers()[2].address + len(b"out of sight")
    assert views[0] is not None
    assert np.frombuffer(views[0], np.uint8).ctypes.data == start
    assert views[0].readonly
    assert binary_views(pa.array([None], kind)) == [None]


def test_other_columns_have_none() -> None:
    assert not is_binary(pa.string())
