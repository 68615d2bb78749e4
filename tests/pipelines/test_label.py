"""`dpt label` as a job: shards, near-duplicates, resuming, the command."""

import shutil
from pathlib import Path

import pytest

from datasets_prep.inspect.verify import verify
from datasets_prep.manifest import open_dataset
from pipelines.config import ConfigError
from pipelines.label import LabelJob
from pipelines.tracking.model_reference import BadModel
from tests.support.commands import said
from tests.support.files import contents
from tests.support.labelling import NAME, SMALL, blurred, labelled, planned, save, saved_model
from tests.support.preparing import left_out, pixels
from tests.support.videos import encoded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(9):
        save(root / f"{number}.png", blurred(number))
    shutil.copy(root / "4.png", root / "again.png")
    encoded(root / "clip.mp4", [blurred(100 + number, 64, 96) for number in range(6)])
    (root / "bad.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def job(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelJob:
    return planned([photos], model, tmp_path_factory.mktemp("out"), duplicates=0, frame_step=2)


def test_each_picture_is_in_one_shard_once(job):
    dataset = labelled(job)
    names = [f"{number}.png" for number in range(9)] + [f"clip.mp4#{number:06}" for number in (0, 2, 4)]
    gone = left_out(dataset)
    [duplicate] = {"4.png", "again.png"} & set(gone)
    [kept] = {"4.png", "again.png"} - {duplicate}
    assert gone[duplicate] == f"near-duplicate of {kept}: 0 of 64 bits differ"
    assert gone["bad.jpg"] == "image is not a readable image"
    assert set(pixels(dataset)) == {*names, "again.png"} - {duplicate}
    assert dataset.manifest.samples == {"train": 12}
    assert dataset.manifest.quarantined == 2
    # frames of a video are in neighbouring shards, four pictures each
    shards = [i for i, shard in enumerate(job.plan.shards) if any("#" in s.sample_id for s in shard.samples)]
    assert len(shards) <= 2
    assert verify(dataset).problems == []
    assert "agreement" in verify(dataset).rows


def test_a_job_that_broke_off_ends_with_the_same_bytes(job, model, photos, tmp_path):
    labelled(job)
    before = contents(Path(job.out))
    again = planned([photos], model, tmp_path, duplicates=0, frame_step=2)
    for name in [name for name in before if "duplicates" in name or "train-00001" in name]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(before[name])
    labelled(again)
    assert contents(tmp_path) == before
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    labelled(again)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


@pytest.mark.usefixtures("ray_session")
def test_two_workers_write_the_bytes_of_one(job, model, photos, tmp_path):
    labelled(job)  # by one
    two = planned([photos], model, tmp_path, duplicates=0, frame_step=2, workers=2, device="cpu")
    told: list[str] = []
    states = list(two.run(told.append))
    assert (states[-1].done, states[-1].rejected) == (13, 2)
    assert told[-1] == "near-duplicates: 1 are left out"
    assert contents(tmp_path) == contents(Path(job.out))


def test_a_limit_takes_the_first_of_the_order(model, photos, tmp_path):
    every = planned([photos], model, tmp_path, seed=3)
    some = planned([photos], model, tmp_path, seed=3, limit=5)
    first = {sample.sample_id for shard in every.plan.shards[:2] for sample in shard.samples}
    assert {sample.sample_id for shard in some.plan.shards for sample in shard.samples} <= first
    assert some.plan.samples == 5
    names = {sample.sample_id for sample in planned([photos], model, tmp_path, seed=4).plan.shards[0].samples}
    assert names != {sample.sample_id for sample in every.plan.shards[0].samples}


def test_models_and_names_that_cannot_label_are_refused(model, photos, tmp_path):
    classes = saved_model(tmp_path / "classes", task="segmentation", classes=3)
    with pytest.raises(BadModel, match="this is a segmentation model; labels need one of depth"):
        planned([photos], classes, tmp_path)
    from pipelines.config import LabelConfig
    from pipelines.label import plan_labelling

    for name, problem in {"My photos": "expected 1 to 64 of", "redweb": "redweb is a published"}.items():
        with pytest.raises(ConfigError, match=f"--name: {problem}"):
            plan_labelling(LabelConfig(), [str(photos)], str(model), str(tmp_path), name)


def test_a_dry_run_says_pictures_bytes_and_minutes_and_writes_nothing(model, photos, tmp_path):
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    output = said(
        "label", photos, "--model", model, "--name", NAME, "--out", tmp_path / "out", "--dry-run", *settings
    )
    assert "photos: 12 pictures in 3 shards, files left out: 0; affine" in output
    assert "12 pictures would be labelled: about 0." in output
    assert "MiB, about 0:" in output
    assert not (tmp_path / "out").exists()


def test_inspect_shows_agreement(job, tmp_path):
    labelled(job)
    output = said("inspect", job.out, "--out", tmp_path)
    assert "agreement" in output
    assert "% agree" in (tmp_path / "inspection.html").read_text()
    dataset = open_dataset(f"{job.out}/{NAME}")
    assert dataset.manifest.target_kind == "affine"
    assert "name: agreement\n    dtype: float32" in dataset.folder.read_text(".huggingface.yaml")
