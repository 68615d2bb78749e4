from pathlib import Path

import pytest
import torch

import dpt
from datasets_prep.storage.sealed import sealed
from dpt.ema import MovingAverage
from dpt.weights.folder import CONFIG
from pipelines.training import checkpoint


def model_and_optimizer() -> tuple[dpt.DPT, torch.optim.Optimizer]:
    model = dpt.create_model("dpt_tiny")
    return model, torch.optim.Adam(dpt.parameter_groups(model, 1e-3, 1e-2))


def train(
    model: dpt.DPT, optimizer: torch.optim.Optimizer, steps: int, average: MovingAverage | None = None
) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        if average is not None:
            average.update(skip=torch.zeros(()))


def save(
    folder: Path, model: dpt.DPT, optimizer: torch.optim.Optimizer, average: MovingAverage | None = None
) -> None:
    snapshot = checkpoint.take_snapshot(
        model, optimizer, average, model.config.to_dict(), checkpoint.TrainingState(3)
    )
    folder.mkdir(exist_ok=True)
    for name in (*snapshot.tensors, CONFIG):
        checkpoint.write_file(snapshot, name, folder / name)
        snapshot.state.files[name] = checkpoint.digest_of(folder / name)
    (folder / checkpoint.STATE_FILE).write_text(checkpoint.state_text(snapshot.state))


def test_training_resumes_bit_for_bit_from_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    model, optimizer = model_and_optimizer()
    train(model, optimizer, 3)
    save(tmp_path, model, optimizer)
    other, other_optimizer = model_and_optimizer()
    assert checkpoint.verify(tmp_path).step == 3
    checkpoint.restore(tmp_path, other, other_optimizer, None)
    train(model, optimizer, 2)
    train(other, other_optimizer, 2)
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_with_a_moving_average_the_checkpoint_is_the_average_and_training_resumes_from_the_rest(tmp_path):
    torch.manual_seed(0)
    model, optimizer = model_and_optimizer()
    average = MovingAverage(model, 0.5)
    train(model, optimizer, 3, average)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save(tmp_path, model, optimizer, average)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    saved = dpt.load_model(tmp_path).state_dict()
    assert not all(torch.equal(saved[name], tensor) for name, tensor in before.items())

    other, other_optimizer = model_and_optimizer()
    other_average = MovingAverage(other, 0.5)
    checkpoint.restore(tmp_path, other, other_optimizer, other_average)
    train(model, optimizer, 2, average)
    train(other, other_optimizer, 2, other_average)
    with average.swapped_in(), other_average.swapped_in():
        for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_a_checkpoint_is_a_model_too(tmp_path):
    model, optimizer = model_and_optimizer()
    save(tmp_path, model, optimizer)
    loaded = dpt.load_model(tmp_path)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded.eval()(images), model.eval()(images))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "config.json"])
def test_damage_is_found_and_named(tmp_path, name):
    model, optimizer = model_and_optimizer()
    train(model, optimizer, 1)
    save(tmp_path, model, optimizer)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(checkpoint.DamagedCheckpoint, match=f"{name} differs from its digest"):
        checkpoint.verify(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(checkpoint.DamagedCheckpoint, match=f"{name} is missing"):
        checkpoint.verify(tmp_path)


def test_a_checkpoint_without_readable_state_is_damaged(tmp_path):
    with pytest.raises(checkpoint.DamagedCheckpoint, match=r"state.json is missing"):
        checkpoint.verify(tmp_path)
    (tmp_path / checkpoint.STATE_FILE).write_bytes(b'{"step": 3, "iden\xff')
    with pytest.raises(checkpoint.DamagedCheckpoint, match=r"state.json is damaged"):
        checkpoint.verify(tmp_path)
    (tmp_path / checkpoint.STATE_FILE).write_text(sealed({"a\nb": 1}))
    with pytest.raises(checkpoint.DamagedCheckpoint, match=r"a\\nb") as caught:
        checkpoint.verify(tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path):
    model, optimizer = model_and_optimizer()
    train(model, optimizer, 1)
    save(tmp_path, model, optimizer)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
