from pathlib import Path

import pytest
import torch

import dpt
from datasets_prep.errors import NotFound
from datasets_prep.storage.folder import Folder
from pipelines.config import ConfigError, ModelSection, TrainConfig
from pipelines.tracking.model_reference import load_checkpoint
from pipelines.train import check_fits, identity_of
from pipelines.training.start import build_model, initial_model, save_initial_model


def config(start: str | None = None) -> TrainConfig:
    return TrainConfig(model={"name": "dpt_tiny", "pretrained": False, "start": start}, crop=64)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[str, dpt.DPT]:
    model = dpt.create_model("dpt_tiny")
    dpt.save_model(model, tmp_path / "trained")
    return str(tmp_path / "trained"), model


def test_a_run_copies_the_model_that_it_starts_from(tmp_path, trained):
    path, original = trained
    run = Folder(str(tmp_path / "run"))
    settings = config(path)
    model = initial_model(settings.model, run)
    uri = save_initial_model(settings, model, [], run, print)
    assert uri is not None
    # What becomes of the original no longer matters.
    (Path(path) / "weights.safetensors").unlink()
    again = initial_model(settings.model, run)
    assert again is not None
    assert save_initial_model(settings, again, [], run, print) == uri
    for found in (load_checkpoint(uri), again):
        for name, tensor in found.state_dict().items():
            assert torch.equal(tensor, original.state_dict()[name])


def test_without_a_trained_model_nothing_is_saved(tmp_path):
    run = Folder(str(tmp_path))
    assert initial_model(config().model, run) is None
    assert save_initial_model(config(), None, [], run, print) is None
    assert list(tmp_path.iterdir()) == []


def test_a_missing_start_is_one_clear_line(tmp_path):
    with pytest.raises(NotFound, match=r"no model at .*missing"):
        initial_model(config(str(tmp_path / "missing")).model, Folder(str(tmp_path / "run")))


def test_identities_name_the_start(trained):
    assert identity_of(config(), [])["config"]["model"]["start"] is None
    assert identity_of(config(trained[0]), [])["config"]["model"]["start"] == trained[0]


@pytest.mark.parametrize(("name", "overrides", "message"), [
    ("dpt_tiny", {"task": "segmentation", "classes": 3}, "a segmentation model, but the task is depth"),
    ("dpt_tiny", {"invert": True}, "predicts metric depth"),
])  # fmt: skip
def test_a_model_of_another_task_is_refused(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_fits(config(), [], dpt.create_model(name, **overrides))


@pytest.mark.parametrize(("overrides", "message"), [
    ({"features": "x"}, r"^model\.overrides\.features: Input should be a valid integer.*, got 'x'"),
    ({"channels": 5}, r"^model\.overrides\.channels: .*, got 5"),
    ({"invert": "maybe"}, r"^model\.overrides\.invert: .*, got 'maybe'"),
    ({"features": -5}, r"^model: features: -5, expected from 1 to"),
])  # fmt: skip
def test_overrides_of_a_wrong_type_or_size_are_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build_model(ModelSection(name="dpt_tiny", pretrained=False, overrides=overrides), (64, 64))


def test_an_override_becomes_the_type_of_its_field():
    overrides = {"features": "8", "channels": [8, 8, 8, 8]}
    built = build_model(ModelSection(name="dpt_tiny", pretrained=False, overrides=overrides), (64, 64))
    assert (built.config.features, built.config.channels) == (8, (8, 8, 8, 8))
