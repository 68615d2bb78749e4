"""Which datasets of a folder a run trains on, or is evaluated on; manifests are enough to decide."""

from pathlib import Path

import pytest

from datasets_prep.manifest import Manifest, NotADataset, Shard
from datasets_prep.storage.sealed import sealed
from dpt.zoo import resolve_config
from pipelines.config import TrainConfig
from pipelines.evaluation.selection import evaluation_datasets
from pipelines.tasks.selection import training_datasets
from pipelines.tracking.model_reference import BadModel

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
    "pascal_context_59": ("labels", "none", ("train", "val")),
}


def write(folder: Path, *names: str) -> str:
    for name in names:
        kind, resize, splits = SETS[name]
        shards = [Shard(**{**BLANK, "name": f"{split}.parquet", "split": split}) for split in splits]
        manifest = Manifest(name, kind, "v1", {"resize": resize}, dict.fromkeys(splits, 4), 0, "", {}, shards)
        (folder / name / "v1").mkdir(parents=True)
        (folder / name / "latest.json").write_text(sealed({"version": "v1"}))
        (folder / name / "v1" / "_manifest.json").write_text(manifest.to_json())
    return str(folder)


BLANK = {"rows": 4, "row_groups": [4], "bytes": 0, "sha256": ""}


def chosen(config: TrainConfig, *data: str) -> tuple[list[str], list[str]]:
    said: list[str] = []
    return [dataset.name for dataset in training_datasets(config, data, said.append)], said


@pytest.mark.parametrize(("task", "taken"), [
    ("depth", ["redweb", "tartanair"]),
    ("metric_depth", ["kitti", "robot", "tartanair"]),
    ("segmentation", ["ade20k", "pascal_context_59"]),
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


# ---- evaluation

DISPARITY = resolve_config("dpt_tiny")
LABELS = resolve_config("dpt_tiny", task="segmentation", classes=150)
METRES = resolve_config("dpt_tiny", scale=1.0, shift=0.0, invert=True)


@pytest.mark.parametrize(("model", "split", "taken"), [
    (DISPARITY, "val", ["redweb", "robot", "tartanair"]),
    (DISPARITY, "test", ["eth3d", "kitti", "nyuv2_labelled"]),
    (METRES, "val", ["robot", "tartanair"]),
    (LABELS, "val", ["ade20k"]),
])  # fmt: skip
def test_a_model_is_evaluated_on_what_it_predicts_and_the_others_are_named(model, split, taken, tmp_path):
    said: list[str] = []
    found = evaluation_datasets(model, split, [write(tmp_path, *SETS)], said.append)
    assert [dataset.name for dataset in found] == taken
    [line] = said
    assert line.startswith("not evaluated on: ")
    assert all((f"{name} " in line) == (name not in taken) for name in SETS)


@pytest.mark.parametrize(("model", "name", "error", "message"), [
    (DISPARITY, "ade20k", NotADataset, "ade20k has labels as ground truth, this depth model needs depth"),
    (METRES, "redweb", NotADataset, "redweb has no metric scale"),
    (DISPARITY, "diw", NotADataset, "diw has ordinal as ground truth"),
    (LABELS, "redweb", NotADataset, "redweb has affine as ground truth, labels are needed"),
    (LABELS, "pascal_context_59", BadModel, "predicts 150 classes, not the 59 of pascal_context_59"),
])  # fmt: skip
def test_a_dataset_that_is_given_by_itself_is_not_passed_over(model, name, error, message, tmp_path):
    folder = write(tmp_path, "tartanair", *SETS.keys() & {name})
    split = SETS[name][2][-1]
    with pytest.raises(error, match=message):
        evaluation_datasets(model, split, [f"{folder}/{name}"], pytest.fail)


def test_a_model_with_nothing_to_be_evaluated_on(tmp_path):
    folder = write(tmp_path, "redweb", "ade20k")
    with pytest.raises(NotADataset, match=r"^nothing in .* fits .* and split=val: ade20k .*; redweb"):
        evaluation_datasets(METRES, "val", [folder], pytest.fail)
