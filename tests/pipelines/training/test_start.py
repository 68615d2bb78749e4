from pathlib import Path

import pytest
import torch

import dpt
from datasets_prep.errors import NotFound
from datasets_prep.storage.folder import Folder
from pipelines.config import ConfigError, TrainConfig
from pipelines.tasks.registry import task_of
from pipelines.train import check_fits, identity_of
from pipelines.training.start import keep, load_kept, trained_model


def config(start: str | None = None) -> TrainConfig:
    return TrainConfig(model={"name": "dpt_tiny", "pretrained": False, "start": start}, crop=64)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[str, dpt.DPT]:
    model = dpt.create_model("dpt_tiny")
    dpt.save_model(model, tmp_path / "trained")
    return str(tmp_path / "trained"), model


def test_a_run_keeps_the_model_that_it_starts_from(tmp_path: Path, trained: tuple[str, dpt.DPT]) -> None:
    path, original = trained
    run = Folder(str(tmp_path / "run"))
    settings = config(path)
    model = trained_model(settings.model, run)
    uri = keep(settings, task_of(settings), model, [], run, print)
    assert uri is not None
    # What becomes of the original no longer matters.
    (Path(path) / "weights.safetensors").unlink()
    again = trained_model(settings.model, run)
    assert again is not None
    assert keep(settings, task_of(settings), again, [], run, print) == uri
    for found in (load_kept(uri), again):
        for name, tensor in found.state_dict().items():
            assert torch.equal(tensor, original.state_dict()[name])


def test_without_a_trained_model_nothing_is_kept(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    assert trained_model(config().model, run) is None
    assert keep(config(), task_of(config()), None, [], run, print) is None
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no model at .*missing"):
        trained_model(config(str(tmp_path / "missing")).model, Folder(str(tmp_path / "run")))


def test_identities_tell_the_start_and_are_what_they_were_without(trained: tuple[str, dpt.DPT]) -> None:
    before = identity_of(config(), [])["config"]
    assert "task" not in before
    assert "start" not in before["model"]
    assert identity_of(config(trained[0]), [])["config"]["model"]["start"] == trained[0]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("dpt_tiny", {"task": "segmentation", "classes": 3}, "a segmentation model, but the task is depth"),
        ("dpt_tiny", {"invert": True}, "predicts metric depth"),
    ],
)
def test_a_model_of_another_task_is_refused(name: str, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_fits(config(), [], dpt.create_model(name, **overrides))
