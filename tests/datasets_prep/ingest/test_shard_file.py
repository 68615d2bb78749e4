from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from datasets_prep.ingest import shard_file
from datasets_prep.ingest.shard_file import describe_shard, is_finished_shard, writing_shard
from datasets_prep.manifest import NotADataset
from datasets_prep.storage.folder import Folder


def row(name: str, size: int = 100, **more: Any) -> dict[str, Any]:
    columns = {"sample_id": name, "dataset": "d", "split": "train", "source_path": name, "source_digest": "0"}
    pixels = {"image": b"x" * size, "height": 1, "width": 1, "target_kind": "labels"}
    return {**columns, **pixels, **more}


def write(path: Path, *rows: dict[str, Any]) -> dict[str, Any]:
    with writing_shard(path, "version") as shard:
        for each in rows:
            shard.add(each)
        shard.quarantine.append({"sample_id": "bad", "source_path": "bad.jpg", "reason": "truncated"})
    with path.open("rb") as file:
        return describe_shard(file)


def test_small_rows_are_grouped_by_number_large_ones_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_file, "ROW_GROUP_BYTES", 1000)
    small = write(tmp_path / "small.parquet", *(row(str(i)) for i in range(17)))
    assert small["row_groups"] == [8, 8, 1]
    large = write(tmp_path / "large.parquet", *(row(str(i), 600) for i in range(5)))
    assert large["row_groups"] == [2, 2, 1]
    assert pq.read_table(tmp_path / "large.parquet").column("sample_id").to_pylist() == list("01234")


def test_statistics_that_are_missing_are_not_counted(tmp_path):
    rows = row("a", valid_share=0.5), row("b", valid_share=0.25), row("c")
    described = write(tmp_path / "x.parquet", *rows)
    assert (described["sums"]["valid_share"], described["sums"]["sky_share"]) == ((0.75, 2), (0.0, 0))
    assert described["quarantine"][0]["reason"] == "truncated"
    assert described["bytes"] == (tmp_path / "x.parquet").stat().st_size


def test_a_finished_shard_is_known_by_its_footer(tmp_path):
    folder = Folder(tmp_path)
    assert not is_finished_shard(folder, "x.parquet", "version")
    write(tmp_path / "x.parquet", row("a"))
    assert is_finished_shard(folder, "x.parquet", "version")
    with pytest.raises(NotADataset, match="belongs to another plan"):
        is_finished_shard(folder, "x.parquet", "other")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-20])
    assert not is_finished_shard(folder, "x.parquet", "version")
