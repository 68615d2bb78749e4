"""Which datasets of a folder a run trains on; manifests are enough to decide."""

from pathlib import Path

import pytest

from datasets_prep.manifest import Manifest, NotADataset, Shard
from pipelines.config import TrainConfig
from pipelines.tasks.selection import training_datasets

# Name → kind of ground truth, resize rule, splits.
SETS = {
    "redweb": ("affine", "shorter", ("train", "val")),
    "tartanair": ("metric", "shorter", ("train", "val")),
    "robot": ("metric", "none", ("train", "val")),
    "kitti": ("metric", "none", ("train", "test")),
    "nyuv2_labelled": ("metric", "none", ("test",)),
    "eth3d": ("metric", "shorter", ("test",)),
    "diw": ("ordinal", "shorter", ("train", "test")),
    "ade20k": ("labels", "none", ("train", "val")),
}


def write(folder: Path, *names: str) -> str:
    for name in names:
        kind, resize, splits = SETS[name]
        shards = [Shard(**{**BLANK, "name": f"{split}.parquet", "split": split}) for split in splits]
        manifest = Manifest(name, kind, "v1", {"resize": resize}, dict.fromkeys(splits, 4), 0, {}, shards)
        (folder / name / "v1").mkdir(parents=True)
        (folder / name / "latest.json").write_text('{"version": "v1"}')
        (folder / name / "v1" / "manifest.json").write_text(manifest.to_json())
    return str(folder)


BLANK = dict.fromkeys(Shard.__dataclass_fields__, 0)


def chosen(config: TrainConfig, *data: str) -> tuple[list[str], list[str]]:
    said: list[str] = []
    return [dataset.name for dataset in training_datasets(config, data, said.append)], said


@pytest.mark.parametrize(("task", "taken"), [
    ("depth", ["redweb", "tartanair"]),
    ("metric_depth", ["kitti", "robot", "tartanair"]),
    ("segmentation", ["ade20k"]),
])  # fmt: skip
def test_of_a_folder_what_fits_the_task_is_taken_and_the_others_named(task, taken, tmp_path):
    optimizer = {"objective": "average"}
    names, said = chosen(TrainConfig(task=task, optimizer=optimizer), write(tmp_path, *SETS))
    assert names == taken
    [line] = said
    assert "\n" not in line
    for name in SETS.keys() - set(taken):
        assert name in line
    assert not any(f"{name} " in line for name in taken)


def test_nothing_is_said_where_all_fit(tmp_path):
    assert chosen(TrainConfig(), write(tmp_path, "redweb", "tartanair")) == (["redweb", "tartanair"], [])


def test_what_is_named_is_taken(tmp_path):
    write(tmp_path / "mine", "robot")
    folder = write(tmp_path / "shards", "redweb", "ade20k")
    for robot in (f"{tmp_path}/mine/robot", f"{tmp_path}/mine/robot/", f"{tmp_path}/mine/robot/v1"):
        names, [line] = chosen(TrainConfig(), folder, robot)
        assert names == ["redweb", "robot"]
        assert "ade20k has labels as ground truth" in line
    both = write(tmp_path / "both", "redweb", "robot")
    assert chosen(TrainConfig(weights={"redweb": 1, "robot": 2}), both) == (["redweb", "robot"], [])
    assert chosen(TrainConfig(stages=[{"steps": 5, "datasets": ["robot"]}]), both)[0] == ["redweb", "robot"]


def test_where_nothing_fits_it_is_one_line_that_says_why(tmp_path):
    folder = write(tmp_path, "robot", "ade20k", "nyuv2_labelled")
    with pytest.raises(NotADataset) as caught:
        chosen(TrainConfig(), folder)
    text = str(caught.value)
    assert "\n" not in text
    assert f"nothing in {folder} fits task=depth" in text
    assert "ade20k has labels" in text
    assert "robot keeps its images' size (resize=none)" in text
    assert "nyuv2_labelled has no split 'train'" in text
