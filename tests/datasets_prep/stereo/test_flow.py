"""DIS on rendered and real pairs; RAFT with weights from a file: shapes, padding, refusals."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets_prep.errors import NotFound, UserError
from datasets_prep.stereo.disparity import disparity_of
from datasets_prep.stereo.flow import RaftFlow, dis_flow
from datasets_prep.writers.stereo_video import render_shot
from tests.support.paths import REPOSITORY

MIDDLEBURY = REPOSITORY.parent / "shared" / "samples" / "middlebury2014"


def test_dis_recovers_a_rendered_pair():
    [frame] = render_shot(4, 1, 192, 256, ("hall",))
    there, back = dis_flow(frame.left, frame.right)
    assert there.shape == back.shape == (192, 256, 2)
    assert there.dtype == back.dtype == np.float32
    disparity = disparity_of(there, back)
    consistent = frame.visible & (disparity.uncertainty < 2)
    error = np.abs(disparity.values - frame.disparity)
    assert consistent.mean() > 0.8
    assert (error[consistent] < 2).mean() > 0.9
    # Left to right, points move to the left where they are before the screen.
    assert np.median(there[..., 0][frame.disparity > 4]) < -3


def test_dis_does_not_remember():
    first = render_shot(3, 1, 96, 128, ("room",))[0]
    other = render_shot(4, 1, 96, 128, ("room",))[0]
    expected = dis_flow(first.left, first.right)
    dis_flow(other.left, other.right)
    for flow, again in zip(expected, dis_flow(first.left, first.right), strict=True):
        np.testing.assert_array_equal(flow, again)


@pytest.mark.skipif(not MIDDLEBURY.is_dir(), reason="the folder of real samples is not there")
def test_dis_on_a_real_pair_at_full_size(capsys, monkeypatch):
    path = REPOSITORY / "benchmarks" / "stereo.py"
    spec = importlib.util.spec_from_file_location("benchmarks_stereo", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)
    spec.loader.exec_module(benchmark)
    pair = benchmark.read_pair(MIDDLEBURY)
    assert pair.truth.shape == (500, 741)
    shares = benchmark.shares_of(pair, dis_flow)
    with capsys.disabled():
        print(f"\nMiddlebury, DIS: {shares}")
    assert shares.consistent >= 0.85
    assert shares.coverage >= 0.85
    plain = benchmark.shares_of(pair, benchmark.plain_dis)
    assert shares.consistent > plain.consistent
    assert shares.all > plain.all


# ---- RAFT
@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, as a file of safetensors."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft.safetensors"
    save_file(raft_large(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def raft(weights: Path) -> RaftFlow:
    return RaftFlow(str(weights), updates=1, device="cpu")


def test_raft_keeps_sizes_that_it_has_to_pad(raft):
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (2, 100, 135, 3)).astype(np.uint8)
    there, back = raft(left, right)
    assert there.shape == back.shape == (100, 135, 2)
    assert there.dtype == back.dtype == np.float32
    assert np.isfinite(there).all()


def test_rafts_second_flow_is_that_of_the_swapped_pair(raft):
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 256, (2, 128, 136, 3)).astype(np.uint8)
    there, back = raft(left, right)
    swapped_there, swapped_back = raft(right, left)
    np.testing.assert_allclose(back, swapped_there, atol=1e-3)
    np.testing.assert_allclose(there, swapped_back, atol=1e-3)
    assert np.abs(there - back).max() > 1e-3


def test_rafts_flow_is_that_of_torchvisions_model(raft, weights):
    import torch
    from safetensors.torch import load_file
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

    rng = np.random.default_rng(2)
    left, right = rng.integers(0, 256, (2, 128, 136, 3)).astype(np.uint8)
    model = raft_large(weights=None).eval()
    model.load_state_dict(load_file(weights))
    tensors = [torch.from_numpy(view).permute(2, 0, 1)[None] for view in (left, right)]
    prepared = Raft_Large_Weights.DEFAULT.transforms()(*tensors)
    with torch.inference_mode():
        expected = model(*prepared, num_flow_updates=1)[-1][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(raft(left, right)[0], expected, atol=1e-3)


def test_torchvisions_own_files_of_weights_are_read(raft, weights, tmp_path):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(weights), tmp_path / "raft.pth")
    other = RaftFlow(str(tmp_path / "raft.pth"), updates=1, device="cpu")
    left = np.zeros((128, 128, 3), np.uint8)
    np.testing.assert_array_equal(other(left, left)[0], raft(left, left)[0])


def test_missing_weights_are_named():
    with pytest.raises(NotFound, match=r"no such file of RAFT weights: nowhere\.pth"):
        RaftFlow("nowhere.pth", 1, "cpu")


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00:\x85R."])
def test_files_that_are_no_weights_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        RaftFlow(str(tmp_path / name), 1, "cpu")
    assert len(str(caught.value).splitlines()) == 1


def test_weights_of_another_model_are_refused(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no weights of torchvision's raft_large"):
        RaftFlow(str(tmp_path / "other.safetensors"), 1, "cpu")
