from pathlib import Path

import pytest

from datasets_prep.manifest import open_datasets
from pipelines.config import ConfigError, TrainConfig
from pipelines.config_files import load_section
from pipelines.tasks.selection import training_datasets
from pipelines.train import check_fits

TINY = ["model.name=dpt_tiny", "model.pretrained=false", "crop=64"]
ALIGNED = "feature_alignment.datasets=[redweb]"


def config(*overrides: str) -> TrainConfig:
    return load_section("train", TrainConfig, None, [*TINY, *overrides])


@pytest.mark.heavy
def test_an_encoder_of_the_models_width_is_accepted(shards_folder):
    datasets = open_datasets([str(shards_folder)])
    small = ["model.overrides.backbone=vit_small_patch16_224", "model.overrides.backbone_arguments={}"]
    dino = "feature_alignment.encoder=vit_small_patch14_dinov2.lvd142m"
    check_fits(config(*small, ALIGNED, dino), datasets)


@pytest.mark.heavy
@pytest.mark.parametrize(("overrides", "message"), [
    ([], r"^feature_alignment\.encoder: vit_large_patch14_dinov2.lvd142m has features of 1024 channels, "
         "those of the model have 64: choose an encoder of the same width"),
    (["feature_alignment.encoder=vit_lage"], r"^feature_alignment\.encoder: .*vit_lage"),
])  # fmt: skip
def test_an_encoder_that_does_not_fit_is_refused(shards_folder, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_fits(config(ALIGNED, *overrides), open_datasets([str(shards_folder)]))


@pytest.mark.parametrize("setting", [
    "loss.trims={a: 0.1}", "loss.gradient_weights={a: 0}", "perturb.datasets=[a]",
    "feature_alignment.datasets=[a]",
])  # fmt: skip
def test_what_is_for_relative_depth_is_refused_for_other_tasks(setting):
    with pytest.raises(ConfigError, match=rf"{setting.split('=')[0]}: is for task=depth only, not"):
        config("task=metric_depth", setting)


def test_a_dataset_with_settings_of_its_own_is_taken_of_a_folder(shards_folder: Path, monkeypatch):
    monkeypatch.setattr("pipelines.tasks.relative_depth.RelativeDepth.set_apart", lambda *_: "set apart")
    said: list[str] = []
    found = training_datasets(config("perturb.datasets=[redweb]"), [str(shards_folder)], said.append)
    assert [dataset.name for dataset in found] == ["redweb"]
    assert said == ["not trained on: set apart; --data DATASET takes one by name"]
