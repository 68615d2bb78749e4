from pathlib import Path

import pytest
import torch

import dpt
from pipelines.checkpoints import CheckpointMismatch, TrainingState, load_checkpoint, save_checkpoint


def model_and_optimizer() -> tuple[dpt.DPT, torch.optim.Optimizer]:
    model = dpt.create_model("dpt_tiny")
    return model, torch.optim.Adam(dpt.parameter_groups(model, 1e-3, 1e-2))


def train(model: dpt.DPT, optimizer: torch.optim.Optimizer, steps: int) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def test_training_goes_on_bit_for_bit_from_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, optimizer = model_and_optimizer()
    train(model, optimizer, 3)
    save_checkpoint(tmp_path, model, optimizer, TrainingState(3, {"redweb": "abc"}))
    other, other_optimizer = model_and_optimizer()
    assert load_checkpoint(tmp_path, other, other_optimizer, {"redweb": "abc"}) == 3
    train(model, optimizer, 2)
    train(other, other_optimizer, 2)
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_is_a_model_too(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    save_checkpoint(tmp_path, model, optimizer, TrainingState(0, {}))
    loaded = dpt.load_model(tmp_path)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded.eval()(images), model.eval()(images))


def test_a_checkpoint_of_other_data_is_refused_with_the_difference(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    save_checkpoint(tmp_path, model, optimizer, TrainingState(1, {"redweb": "abc", "hrwsi": "same"}))
    with pytest.raises(CheckpointMismatch, match="trained on other data: blendedmvs, redweb changed"):
        load_checkpoint(tmp_path, model, optimizer, {"redweb": "xyz", "hrwsi": "same", "blendedmvs": "new"})


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    train(model, optimizer, 1)
    save_checkpoint(tmp_path, model, optimizer, TrainingState(1, {}))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
