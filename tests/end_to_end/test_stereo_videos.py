"""From stereo videos to shards, with the commands as a user types them."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from datasets_prep.manifest import open_dataset
from datasets_prep.schema import decode_inverse_depth
from datasets_prep.synthetic import write_dataset
from tests.support.commands import said


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("dataset", "seed"), [("movies", 35), ("wsvd", 37)])
def test_videos_become_shards(dataset, seed, tmp_path):
    generated, raw, shards = tmp_path / "generated", tmp_path / "raw", tmp_path / "shards"
    write_dataset(dataset, generated, scenes=2, seed=seed, height=128, width=192)
    lists = ("--lists", generated / "lists") if dataset == "wsvd" else ()
    told = said("stereo", dataset, "--videos", generated / "videos", "--out", raw, *lists)
    assert "frames of 2 videos" in told
    assert "frames: no depth" in told
    said("prepare", dataset, "--raw", raw, "--out", shards, "side=64")
    prepared = open_dataset(str(shards / dataset))
    assert prepared.manifest.target_kind == "affine"
    paths = [f"{prepared.folder.path}/{shard.name}" for shard in prepared.manifest.shards]
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert len(rows) == {"movies": 16, "wsvd": 12}[dataset]
    assert {row["split"] for row in rows} == {"train"}
    for row in rows:
        assert (row["height"], row["width"]) == (64, 96)
        assert row["valid_share"] > 0.7
        values = decode_inverse_depth(row["inverse_depth"], 64, 96).astype(np.float32)
        assert (np.nanmin(values), np.nanmax(values)) == (0.0, 1.0)
