import json
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from datasets_prep.errors import WrongLayout
from datasets_prep.ingest import run as ingest_module
from datasets_prep.ingest.run import ingest, ingest_all, run_shards, write_shard
from datasets_prep.manifest import NotADataset, open_dataset, open_datasets
from datasets_prep.plan.shards import ShardPlan, find_source, plan_ingest
from datasets_prep.schema import SCHEMA, decode_image, decode_inverse_depth
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.sources.base import Listing
from datasets_prep.sources.redweb import ReDWeb
from datasets_prep.sources.samples import Samples
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import StorageFailed
from datasets_prep.storage.sealed import DamagedFile, sealed, unsealed
from datasets_prep.synthetic import write_dataset, write_traps
from tests.support.files import contents
from tests.support.paths import SAMPLES
from tests.support.shards import prepare

SETTINGS = IngestSettings(side=64, samples_per_shard=4, validation_share=0.25)


@pytest.fixture
def traps(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A ReDWeb with everything that goes wrong in the real one; sample id → what."""
    root = tmp_path / "traps"
    write_dataset("redweb", root, scenes=6, height=96, width=128)
    return root, write_traps("redweb", root, height=96, width=128)


def test_every_sample_is_in_exactly_one_shard(raw_folder, shards_folder):
    listed = find_source("redweb").list(Folder(raw_folder / "redweb"))
    prepared = open_dataset(str(shards_folder / "redweb"))
    ids = []
    for shard in prepared.manifest.shards:
        table = pq.read_table(f"{prepared.folder.path}/{shard.name}")
        assert table.schema.equals(SCHEMA)
        assert set(table.column("split").to_pylist()) == {shard.split}
        assert table.num_rows == shard.rows == sum(shard.row_groups)
        ids += table.column("sample_id").to_pylist()
    assert sorted(ids) == sorted(sample.sample_id for sample in listed.samples)
    assert prepared.manifest.samples == {"train": 15, "val": 5}


def test_rows_decode_and_agree_with_their_statistics(shards_folder):
    prepared = open_dataset(str(shards_folder / "tartanair"))
    for shard in prepared.manifest.shards:
        for row in pq.read_table(f"{prepared.folder.path}/{shard.name}").to_pylist():
            shape = (row["height"], row["width"])
            values = decode_inverse_depth(row["inverse_depth"], *shape).astype(np.float32)
            assert decode_image(row["image"]).shape == (*shape, 3)
            valid = ~np.isnan(values)
            assert row["valid_share"] == pytest.approx(valid.mean(), abs=1e-6)
            assert row["inverse_depth_median"] == pytest.approx(np.median(values[valid]), abs=1e-3)
            assert values[valid].max() == 1.0
            assert row["scale"] > 0
            assert row["target_kind"] == "metric"


def test_duckdb_reads_the_statistics_without_our_code(shards_folder):
    prepared = open_dataset(str(shards_folder / "redweb"))
    columns, shards = "split, count(*), min(valid_share)", f"{prepared.folder.path}/*-*.parquet"
    rows = duckdb.sql(f"select {columns} from '{shards}' group by 1 order by 1").fetchall()
    assert [row[:2] for row in rows] == [("train", 15), ("val", 5)]
    assert all(0 < row[2] <= 1 for row in rows)


def test_scenes_are_not_torn_apart_by_the_split(shards_folder):
    prepared = open_dataset(str(shards_folder / "tartanair"))
    scenes: dict[str, set[str]] = {"train": set(), "val": set()}
    for shard in prepared.manifest.shards:
        ids = pq.read_table(f"{prepared.folder.path}/{shard.name}").column("sample_id").to_pylist()
        scenes[shard.split] |= {sample_id.rsplit("/", 1)[0] for sample_id in ids}
    assert (len(scenes["train"]), len(scenes["val"])) == (3, 1)
    assert not scenes["train"] & scenes["val"]


@pytest.mark.usefixtures("ray_session")
def test_the_same_settings_give_the_same_bytes(raw_folder, shards_folder, tmp_path):
    ingest_all(plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS), str(tmp_path))
    assert contents(tmp_path / "redweb") == contents(shards_folder / "redweb")


@pytest.mark.usefixtures("ray_session")
def test_an_interrupted_ingest_goes_on_where_it_stopped(raw_folder, shards_folder, tmp_path):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)
    version = tmp_path / "redweb" / plan.version
    shutil.copytree(shards_folder / "redweb" / plan.version, version)
    (version / "_manifest.json").unlink()
    (version / "train-00001.parquet").unlink()
    (version / "train-00002.parquet.partial-0123").write_bytes(b"half a shard")
    flipped = bytearray((version / "val-00000.parquet").read_bytes())
    flipped[len(flipped) // 3] ^= 1
    (version / "val-00000.parquet").write_bytes(flipped)
    kept = (version / "train-00000.parquet").stat().st_mtime_ns
    ingest_all(plan, str(tmp_path))
    assert contents(tmp_path / "redweb") == contents(shards_folder / "redweb")
    assert (version / "train-00000.parquet").stat().st_mtime_ns == kept


def test_a_finished_dataset_is_left_untouched(raw_folder, shards_folder):
    before = {path: path.stat().st_mtime_ns for path in (shards_folder / "redweb").rglob("*")}
    steps = list(ingest(plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS), str(shards_folder)))
    assert steps == []
    assert {path: path.stat().st_mtime_ns for path in (shards_folder / "redweb").rglob("*")} == before


def test_another_setting_makes_another_version_beside_the_old_one(raw_folder, shards_folder, tmp_path):
    shutil.copytree(shards_folder / "redweb", tmp_path / "redweb")
    before = contents(tmp_path / "redweb")
    changed = SETTINGS.model_copy(update={"jpeg_quality": 80})
    prepared = prepare(plan_ingest("redweb", str(raw_folder / "redweb"), changed), str(tmp_path))
    after = contents(tmp_path / "redweb")
    assert [name for name in before if name != "latest.json" and after.get(name) != before[name]] == []
    assert open_dataset(str(tmp_path / "redweb")).manifest.version == prepared.manifest.version
    assert prepared.manifest.settings["jpeg_quality"] == 80


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"side": 32}, {"resize": "longer"}, {"limit": 3}, {"samples_per_shard": 5}]
)
def test_every_setting_is_part_of_the_version(raw_folder, change):
    raw = str(raw_folder / "redweb")
    plain = plan_ingest("redweb", raw, SETTINGS)
    assert plan_ingest("redweb", raw, SETTINGS.model_copy(update=change)).version != plain.version
    assert plan_ingest("redweb", raw, SETTINGS).version == plain.version


def test_bad_samples_are_quarantined_with_path_and_reason(traps, tmp_path):
    raw, wrong = traps
    prepared = prepare(plan_ingest("redweb", str(raw), SETTINGS), str(tmp_path / "out"))
    table = pq.read_table(f"{prepared.folder.path}/_quarantine.parquet").to_pylist()
    reasons = {Path(entry["source_path"]).stem: entry["reason"] for entry in table}
    harmless = {"grey image", "RGBA image", "mismatched size"}
    expected = {sample_id for sample_id, what in wrong.items() if what not in harmless}
    assert set(reasons) == expected
    assert prepared.manifest.quarantined == len(expected)
    for sample_id in expected:
        assert len(reasons[sample_id]) > 10
    assert sum(prepared.manifest.samples.values()) == 6 + len(wrong) - len(expected)


def test_a_dataset_without_one_usable_sample_is_refused_but_its_quarantine_table_stays(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_dataset("redweb", raw, scenes=2, height=96, width=128)
    for path in (raw / "RDs").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    plan = plan_ingest("redweb", str(raw), SETTINGS)
    with pytest.raises(WrongLayout, match="none of the 2 redweb samples could be used; first reason: Imgs/"):
        prepare(plan, str(out))
    assert pq.read_table(out / "redweb" / plan.version / "_quarantine.parquet").num_rows == 2
    with pytest.raises(NotADataset, match="no prepared dataset"):
        open_dataset(str(out / "redweb"))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        plan_ingest("redweb", str(tmp_path / "nowhere"), SETTINGS)


def test_another_datasets_folder_is_refused_and_recognised(raw_folder):
    said = r"no redweb sample in .*; expected .*Imgs.*It looks like tartanair\."
    with pytest.raises(WrongLayout, match=said):
        plan_ingest("redweb", str(raw_folder / "tartanair"), SETTINGS)


def test_an_unknown_dataset_is_refused_with_the_known_ones():
    with pytest.raises(WrongLayout, match=r"unknown dataset 'redwep'; there are: .*redweb"):
        find_source("redwep")


def test_sample_ids_that_are_not_unique_are_refused(tmp_path, raw_folder, monkeypatch):
    class Doubling(ReDWeb):
        def list(self, root: Folder) -> Listing:
            listing = super().list(root)
            return Listing(Samples([*listing.samples, *listing.samples]), listing.rejected)

    monkeypatch.setitem(SOURCES, "redweb", Doubling())
    with pytest.raises(WrongLayout, match=r"redweb: sample '.+' is found 2 times \(20 such ids\)"):
        plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)


def test_a_folder_of_datasets_opens_sorted_and_a_doubled_one_is_refused(shards_folder):
    assert [d.name for d in open_datasets([str(shards_folder)])] == ["redweb", "tartanair"]
    with pytest.raises(NotADataset, match="redweb is given twice"):
        open_datasets([str(shards_folder), str(shards_folder / "redweb")])
    with pytest.raises(NotADataset, match="no prepared dataset at"):
        open_datasets([str(shards_folder / "redweb" / "nothing")])


def test_a_manifest_of_another_schema_is_refused(shards_folder, tmp_path):
    version = open_dataset(str(shards_folder / "redweb")).folder.path
    text = Path(version, "_manifest.json").read_text()
    (tmp_path / "_manifest.json").write_text(sealed({**unsealed(text, "x"), "schema_version": 99}))
    with pytest.raises(NotADataset, match="schema version 99"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "../x.parquet", "a/b.parquet", "x.parquet\n"])
def test_a_manifest_lists_files_of_its_own_folder(name, shards_folder, tmp_path):
    version = open_dataset(str(shards_folder / "redweb")).folder.path
    content = unsealed(Path(version, "_manifest.json").read_text(), "x")
    content["shards"][0]["name"] = name
    (tmp_path / "_manifest.json").write_text(sealed(content))
    with pytest.raises(NotADataset, match=r"is not a dataset manifest: .*shards\.0\.name"):
        open_dataset(str(tmp_path))


def test_damaged_files_of_a_dataset_are_named(shards_folder, tmp_path):
    shutil.copytree(shards_folder / "redweb", tmp_path / "redweb")
    prepared = open_dataset(str(tmp_path / "redweb"))
    version = Path(prepared.folder.path)
    assert prepared.read_quarantine() == []
    quarantine = bytearray((version / "_quarantine.parquet").read_bytes())
    quarantine[30] ^= 4
    (version / "_quarantine.parquet").write_bytes(quarantine)
    with pytest.raises(DamagedFile, match=r"quarantine\.parquet is damaged: it differs"):
        prepared.read_quarantine()
    text = (version / "_manifest.json").read_text()
    (version / "_manifest.json").write_text(text.replace('"rows": ', '"rows": 1', 1))
    with pytest.raises(NotADataset, match=r"manifest\.json is damaged: .* `dpt prepare` writes it again"):
        open_dataset(str(version))
    for content in ("", "{}", "[1]", '{"version": "../../elsewhere"}'):
        (tmp_path / "redweb" / "latest.json").write_text(content)
        with pytest.raises(NotADataset, match=r"latest\.json is damaged: .* run `dpt prepare` again"):
            open_dataset(str(tmp_path / "redweb"))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the folder of real samples is not there")
def test_a_real_tartanair_frame_is_ingested_in_metres(tmp_path):
    raw = SAMPLES / "tartanair"
    prepared = prepare(plan_ingest("tartanair", str(raw), IngestSettings()), str(tmp_path))
    row = pq.read_table(f"{prepared.folder.path}/train-00000.parquet").to_pylist()[0]
    assert (row["height"], row["width"], row["split"]) == (384, 512, "train")
    values = decode_inverse_depth(row["inverse_depth"], 384, 512).astype(np.float64)
    depth = np.load(next(raw.rglob("*_depth.npy")))
    metres = 1 / (values * row["scale"])
    assert metres.min() == pytest.approx(depth.min(), rel=2e-3)
    # Sampled at the pixel centres of the smaller grid, every value is one of the frame's own.
    rows, columns = ((np.arange(n) + 0.5) * o / n for n, o in ((384, 480), (512, 640)))
    expected = depth[rows.astype(int)[:, None], columns.astype(int)[None, :]]
    np.testing.assert_allclose(metres, expected, rtol=2e-3)


# ---- storage that fails
def shard_results(failing: dict[str, int]) -> Any:
    """A stand-in for a round of tasks: the named shards fail so many times."""

    def run_round(shards: list[ShardPlan]) -> Iterator[dict[str, Any]]:
        for shard in shards:
            if failing.get(shard.name, 0) > 0:
                failing[shard.name] -= 1
                yield {"name": shard.name, "split": shard.split, "failure": "s3 is down"}
            else:
                yield {"name": shard.name, "split": shard.split, "rows": shard.count}

    return run_round


def test_a_shard_that_storage_failed_is_tried_again(raw_folder):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)
    failing = {"train-00001.parquet": ingest_module.ROUNDS - 1, "val-00000.parquet": 1}
    results = list(run_shards(plan.shards, shard_results(failing)))
    assert sorted(result["name"] for result in results) == sorted(shard.name for shard in plan.shards)
    assert sum(result["rows"] for result in results) == plan.samples


def test_storage_that_fails_for_good_ends_the_job_with_its_reason(raw_folder):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)
    said = r"1 of 6 shards cannot be written; train-00001.parquet: s3 is down"
    with pytest.raises(StorageFailed, match=said):
        list(run_shards(plan.shards, shard_results({"train-00001.parquet": 99})))


def test_failing_storage_never_quarantines_a_sample(raw_folder, tmp_path, monkeypatch):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)

    def fail(*_: object, **__: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("datasets_prep.storage.retries.PAUSES", ())
    monkeypatch.setattr(LocalFileSystem, "cat_file", fail)
    where = {"source": plan.source, "raw": plan.raw, "out": str(tmp_path), "version": plan.version}
    packed = {"shard": pickle.dumps(plan.shards[0])}
    result = json.loads(write_shard(packed, **where, settings=plan.settings.model_dump())["result"])
    assert "Input/output error" in result["failure"]
    assert "quarantine" not in result
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ray_session")
def test_two_jobs_on_one_output_do_not_disturb_each_other(raw_folder, shards_folder, tmp_path):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)
    with ThreadPoolExecutor(2) as pool:
        for prepared in pool.map(lambda _: ingest_all(plan, str(tmp_path)), range(2)):
            assert prepared.manifest.samples == {"train": 15, "val": 5}
    assert contents(tmp_path / "redweb") == contents(shards_folder / "redweb")


def test_a_place_that_nobody_may_write_to_is_a_mistake_of_the_user_not_a_failure_to_try_again(raw_folder):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)
    where = {"source": plan.source, "raw": plan.raw, "out": "/sys/dpt", "version": plan.version}
    packed = {"shard": pickle.dumps(plan.shards[0])}
    result = json.loads(write_shard(packed, **where, settings=plan.settings.model_dump())["result"])
    assert "allow it, or choose another place" in result["mistake"]
    assert "failure" not in result
