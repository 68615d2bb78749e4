import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.sealed_parquet import DamagedShard
from pipelines.loading.shard_reader import (
    TRAINING_COLUMNS,
    ShardReader,
    binary_views,
    is_binary,
)


@pytest.fixture
def datasets(shards_folder: Path) -> list[PreparedDataset]:
    return open_datasets([str(shards_folder)])


def every_row(reader: ShardReader) -> list[str]:
    """Sample ids, in order."""
    places = [(i, group) for i, groups in enumerate(reader.row_groups) for group in range(len(groups))]
    return [row["sample_id"] for place in places for row in reader.rows(*place)]


def expected_rows(datasets: list[PreparedDataset]) -> list[str]:
    paths = [d.folder.path_of(s.name) for d in datasets for s in d.manifest.split("train")]
    return [name for path in paths for name in pq.read_table(path)["sample_id"].to_pylist()]


def test_rows_are_those_of_all_shards_in_order(datasets):
    assert every_row(ShardReader(datasets, "train")) == expected_rows(datasets)


def test_a_row_is_what_the_shard_has(datasets):
    path = datasets[1].folder.path_of(datasets[1].manifest.split("train")[0].name)
    expected = pq.read_table(path).slice(1, 1).to_pylist()[0]
    row = ShardReader(datasets, "train", ("sample_id", "image", "height", "scale", "depth")).row(1, 0, 1)
    assert row == {name: expected[name] for name in ("sample_id", "image", "height", "scale", "depth")}


def test_a_damaged_shard_is_named(shards_folder, tmp_path):
    shutil.copytree(shards_folder / "redweb", tmp_path / "redweb")
    (dataset,) = open_datasets([str(tmp_path)])
    path = Path(dataset.folder.path_of(dataset.manifest.split("train")[1].name))
    content, columns = path.read_bytes(), pq.ParquetFile(path).metadata.row_group(0)
    chunks = [columns.column(number) for number in range(columns.num_columns)]
    images = next(chunk for chunk in chunks if chunk.path_in_schema == "image")
    middle = images.data_page_offset + images.total_compressed_size // 2
    for place, flip in ((middle, 1), (images.data_page_offset, 255), (len(content) - 20, 255)):
        path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        with pytest.raises(DamagedShard, match=rf"^{path} is damaged: .*`dpt inspect` lists what else is"):
            every_row(ShardReader([dataset], "train", TRAINING_COLUMNS))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        every_row(ShardReader([dataset], "train", TRAINING_COLUMNS))


def test_remote_shards_read_the_same(datasets):
    remote = Folder("memory://shard-reader")
    for shard in datasets[0].manifest.shards:
        with remote.writing(shard.name) as path:
            path.write_bytes(datasets[0].folder.read_bytes(shard.name))
    away = PreparedDataset(remote, datasets[0].manifest)
    assert every_row(ShardReader([away], "train")) == expected_rows(datasets[:1])


def test_memory_and_open_files_are_bounded(datasets, monkeypatch):
    monkeypatch.setattr("pipelines.loading.shard_reader._OPEN_FILES", 2)
    reader = ShardReader(datasets, "train", cached_bytes=50_000)
    rng = np.random.default_rng(0)
    ids = {}
    for _ in range(60):
        dataset = int(rng.integers(2))
        group = int(rng.integers(len(reader.row_groups[dataset])))
        row = reader.row(dataset, group, 0)
        assert ids.setdefault((dataset, group), row["sample_id"]) == row["sample_id"]
        assert len(reader._files) <= 2
        assert reader._sizes.keys() == reader._groups.keys()
        assert sum(reader._sizes.values()) <= 50_000 or len(reader._groups) == 1
    assert len(ids) > 4


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_rows_lie_where_the_column_has_them(kind):
    column = pa.array([b"out of sight", b"one", None, b"", b"two words", b"after"], kind)[1:5]
    assert is_binary(kind)
    views = binary_views(column)
    assert [None if view is None else bytes(view) for view in views] == [b"one", None, b"", b"two words"]
    start = column.buffers()[2].address + len(b"out of sight")
    assert views[0] is not None
    assert np.frombuffer(views[0], np.uint8).ctypes.data == start
    assert views[0].readonly
    assert binary_views(pa.array([None], kind)) == [None]


def test_other_columns_have_none():
    assert not is_binary(pa.string())
