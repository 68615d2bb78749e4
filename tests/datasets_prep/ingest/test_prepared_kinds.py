"""Every kind of ground truth through the whole ingest: what the shards of evaluation sets hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.schema import SCHEMA, decode_depth, decode_image, decode_label
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import write_dataset, write_traps
from tests.support import shards

TARGETS = ("inverse_depth", "depth", "label", "point_pair")
LEFT_OUT = {"grey image", "RGBA image"}
STATISTICS = [field.name for field in SCHEMA if field.name.startswith("inverse_depth_")]


def prepare(name: str, tmp_path: Path, **settings: Any) -> tuple[Folder, dict[str, dict[str, Any]]]:
    """Write, prepare with all traps and read back: sample id → row; every trap must be accounted for."""
    raw = tmp_path / "raw"
    write_dataset(name, raw, scenes=4, height=48, width=64)
    traps = write_traps(name, raw, height=48, width=64)
    chosen = IngestSettings(side=32, samples_per_shard=8, **settings)
    prepared = shards.prepare(plan_ingest(name, str(raw), chosen), str(tmp_path / "shards"))
    rows = {}
    for shard in prepared.manifest.shards:
        table = pq.read_table(f"{prepared.folder.path}/{shard.name}")
        assert table.schema.equals(SCHEMA)
        rows |= {row["sample_id"]: row for row in table.to_pylist()}
    assert {trap for trap in traps if trap in rows} == {t for t, what in traps.items() if what in LEFT_OUT}
    for row in rows.values():
        assert sum(row[target] is not None for target in TARGETS) == 1
    return Folder(raw), rows


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["eth3d", "sintel", "tum", "kitti_161", "nyuv2_labelled"])
def test_evaluation_sets_keep_their_native_ground_truth(name, tmp_path):
    root, rows = prepare(name, tmp_path)
    source = SOURCES[name]
    samples = {s.sample_id: s for s in list_samples(source, root).samples if s.split == "test"}
    native = {sample_id: row for sample_id, row in rows.items() if row["split"] == "test"}
    assert native
    for sample_id, row in native.items():
        raw = source.read(root, samples[sample_id])
        assert row["image"] == raw.image
        depth = decode_depth(row["depth"], row["height"], row["width"])
        np.testing.assert_array_equal(np.isnan(depth), ~raw.valid)
        np.testing.assert_array_equal(depth[raw.valid], raw.target[raw.valid])
        nearest = float(np.nanmin(depth))
        assert row["scale"] == pytest.approx(1 / nearest)


def test_depth_in_the_wild(tmp_path):
    root, rows = prepare("diw", tmp_path)
    for sample in SOURCES["diw"].list(root).samples:
        if sample.sample_id in rows:
            row, pair = rows[sample.sample_id], SOURCES["diw"].read(root, sample)
            assert (row["image"], row["target_kind"]) == (pair.image, "ordinal")
            assert row["point_pair"]["y_a"] == pair.y_a
            assert row["point_pair"]["a_is_farther"] == pair.a_is_farther
            assert all(row[name] is None for name in (*STATISTICS, "valid_share", "scale"))


@pytest.mark.parametrize("name", ["ade20k", "pascal_context_60"])
def test_segmentation_sets(name, tmp_path):
    _, rows = prepare(name, tmp_path)
    splits = {row["split"] for row in rows.values()}
    assert splits == {"train", "val"}
    for row in rows.values():
        labels = decode_label(row["label"])
        assert labels.shape == decode_image(row["image"]).shape[:2] == (row["height"], row["width"])
        assert min(labels.shape) == (32 if row["split"] == "train" else 48)
        assert 0 < row["valid_share"] <= 1


@pytest.mark.heavy
def test_a_users_own_folder(tmp_path):
    _, rows = prepare("folder", tmp_path, validation_share=0.3)
    assert {row["dataset"] for row in rows.values()} == {"rendered_folder"}
    assert {row["target_kind"] for row in rows.values()} == {"metric"}
    assert (tmp_path / "shards" / "rendered_folder" / "latest.json").exists()
    assert any(row["sky_share"] > 0 for row in rows.values())
