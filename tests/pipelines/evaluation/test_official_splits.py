import hashlib
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

import dpt
from datasets_prep.manifest import Manifest, PreparedDataset, Shard, open_datasets
from datasets_prep.storage.folder import Folder
from pipelines.config import EvaluateConfig
from pipelines.evaluation import segmentation
from pipelines.evaluation.official_splits import (
    WrongSplit,
    check_split,
    is_official,
    log_metric_results,
    of_how_many,
)
from pipelines.evaluation.sets import OFFICIAL, MetricProtocol
from pipelines.report.model_page import write_model_report
from pipelines.tracking.registry import evaluation_run
from tests.support.paths import SAMPLES
from tests.support.shards import write_sealed

LISTS = SAMPLES / "splits"


def renamed(folder: Path, train: int, test: int) -> PreparedDataset:
    """A prepared dataset that says it is KITTI, with so many images."""
    (dataset,) = open_datasets([str(folder / "tartanair")])
    splits = {"train": "train", "val": "test"}
    shards = [replace(shard, split=splits[shard.split]) for shard in dataset.manifest.shards]
    changes = {"dataset": "kitti", "samples": {"train": train, "test": test}, "shards": shards}
    return PreparedDataset(dataset.folder, replace(dataset.manifest, **changes))


def test_missing_images_are_counted_and_refused_unless_allowed(shards_folder):
    few = renamed(shards_folder, 23_158, 650)
    with pytest.raises(WrongSplit, match=r"kitti has 650 of 652 test images.*lists\.test=.*--allow-missing"):
        check_split(few, allow_missing=False, say=print)
    said: list[str] = []
    check_split(few, allow_missing=True, say=said.append)
    assert re.search("650 of 652", said[0])


def test_a_list_of_other_images_is_refused(shards_folder):
    with pytest.raises(WrongSplit, match="the 652 test images are not those of the Eigen split"):
        check_split(renamed(shards_folder, 23_158, 652), allow_missing=False, say=print)


def test_other_datasets_have_no_official_split(shards_folder):
    check_split(open_datasets([str(shards_folder / "redweb")])[0], allow_missing=False, say=print)


def test_a_table_says_how_many_images_it_is_of():
    assert of_how_many("kitti", "test", 650.0) == "650 of 652"
    assert of_how_many("kitti", "test", 652.0) == "652"
    assert of_how_many("my_robot", "test", 10.0) == "10"


@pytest.mark.skipif(not LISTS.is_dir(), reason="the authors' lists are not here")
def test_the_digests_are_those_of_the_authors_lists():
    kitti = []
    for line in (LISTS / "bts_eigen_test_files_with_gt.txt").read_text().splitlines():
        image, depth, _ = line.split()
        if depth != "None":
            drive, camera, _, name = image.split("/")[-4:]
            kitti.append(f"{drive}/{camera}/{name[:10]}")
    nyu = []
    for line in (LISTS / "bts_nyudepthv2_test_files_with_gt.txt").read_text().splitlines():
        scene, name = line.split()[0].split("/")
        nyu.append(f"{scene}/{name[4:9]}")
    for dataset, names in (("kitti", kitti), ("nyuv2", nyu)):
        assert len(names) == OFFICIAL[dataset].images
        digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
        assert digest == OFFICIAL[dataset].digest


# ---- whose figures belong into the paper's tables
KITTI, OTHER_CAP = MetricProtocol(80.0, "garg", kb_crop=True), MetricProtocol(50.0, "garg", kb_crop=True)


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedDataset:
    """A prepared dataset `kitti` with the official test images, of which there are three."""
    digest = hashlib.sha256(b"a\nb\nc").hexdigest()
    monkeypatch.setitem(OFFICIAL, "kitti", replace(OFFICIAL["kitti"], images=3, digest=digest))
    write_sealed(pa.table({"sample_id": ["c", "a", "b"]}), tmp_path / "test.parquet")
    shard = Shard("test.parquet", "test", 3, [3], 0, "")
    return PreparedDataset(
        Folder(tmp_path), Manifest("kitti", "metric", "v", {}, {"test": 3}, 0, "", {}, [shard])
    )


def test_only_the_official_images_by_the_published_protocol_belong_into_tables_2_and_3(three):
    assert is_official(three, "test", KITTI)
    assert not is_official(three, "test", OTHER_CAP)
    assert not is_official(three, "test", MetricProtocol(80.0))
    assert not is_official(three, "train", KITTI)
    fewer = replace(three, manifest=replace(three.manifest, samples={"test": 2}))
    assert not is_official(fewer, "test", KITTI)
    robot = replace(three, manifest=replace(three.manifest, dataset="robot"))
    assert not is_official(robot, "test", KITTI)
    write_sealed(pa.table({"sample_id": ["c", "a", "x"]}), Path(three.folder.uri) / "test.parquet")
    assert not is_official(three, "test", KITTI), "other images"


@pytest.mark.parametrize(("protocol", "filled"), [(KITTI, True), (OTHER_CAP, False)])
def test_a_fine_tuned_model_fills_its_table(protocol, filled, three, mlflow_database, tmp_path):
    model = tmp_path / "tiny"
    dpt.save_model(dpt.create_model("dpt_tiny", image_size=64, scale=0.1, shift=0.1), model)
    with evaluation_run(str(model), "evaluate", EvaluateConfig(split="test"), [three]) as run:
        log_metric_results(run, {"kitti": {"abs_rel": 0.0617}}, [three], "test", {"kitti": protocol})
    assert run.metrics() == {"metric/abs_rel/kitti": 0.0617, "metric/abs_rel/mean": 0.0617}
    page = write_model_report(str(model), tmp_path / "out").read_text()
    assert ("Table 3" in page) is filled
    assert ">0.0617<" in page, "among all measurements"


def test_only_all_images_by_all_scales_belong_into_tables_4_and_5():
    whole, config = SimpleNamespace(images=2000), EvaluateConfig()
    assert segmentation.is_official("ade20k", config, whole)
    assert not segmentation.is_official("ade20k", config, SimpleNamespace(images=1999))
    assert not segmentation.is_official("pascal_context_60", config, whole)
    for changes in ({"split": "train"}, {"inference": {"flip": True}}, {"inference": {"scales": (1.0,)}}):
        assert not segmentation.is_official("ade20k", EvaluateConfig.model_validate(changes), whole)
