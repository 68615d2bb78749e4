"""Position embeddings are resampled once a size, and what is remembered never shows."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import dpt
from dpt.layers.positions import REMEMBERED, PositionGrid


@pytest.fixture
def resampled(monkeypatch):
    """Sizes of all the resampling that is done."""
    sizes = []
    resample = PositionGrid._resample

    def counted(grid, table, height, width):
        sizes.append((height, width))
        return resample(grid, table, height, width)

    monkeypatch.setattr(PositionGrid, "_resample", counted)
    return sizes


@pytest.fixture
def model():
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny").eval()


def of_dinov2(table, side, height, width):
    """`interpolate_pos_encoding` of facebookresearch/dinov2, without the class token."""
    if height == width == side:
        return table
    grid = table if table.dtype == torch.float64 else table.float()
    grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = (height + 0.1) / side, (width + 0.1) / side
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=False)
    assert grid.shape[-2:] == (height, width)
    return grid.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)


@pytest.mark.parametrize(
    "size", [(37, 49), (37, 37), (49, 37), (37, 36), (20, 90), (1, 2), (5, 37), (111, 74)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_positions_of_depth_anything_are_dinov2s(size, dtype):
    torch.manual_seed(0)
    table = torch.randn(1, 37 * 37, 8).to(dtype)
    found, expected = PositionGrid((37, 37), "bicubic")(table, *size), of_dinov2(table, 37, *size)
    assert found.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3}[dtype]
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_every_size_is_resampled_once(model, resampled):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        first = model(images)
        model(torch.randn(1, 3, 32, 32))
        assert torch.equal(model(images), first)
    with torch.inference_mode():
        assert torch.equal(model(images), first)
    assert resampled == [(4, 6), (2, 2)]


def test_only_so_many_sizes_are_remembered():
    table = torch.randn(1, 16, 8)
    grid = PositionGrid((4, 4), "bilinear")
    with torch.no_grad():
        for width in range(1, 3 * REMEMBERED):
            assert grid(table, 3, width).shape == (1, 3 * width, 8)
            assert len(grid._resampled) <= REMEMBERED


@pytest.mark.parametrize("change", ["in place", "loaded", "assigned", "data", "precision"])
def test_a_changed_table_is_noticed(model, change):
    images = torch.randn(1, 3, 64, 96)
    table = model.backbone.vit.pos_embed
    with torch.no_grad():
        model(images)
        state = {**model.state_dict(), "backbone.vit.pos_embed": torch.randn_like(table)}
        if change == "in place":
            table.copy_(state["backbone.vit.pos_embed"])
        elif change == "data":
            table.data = state["backbone.vit.pos_embed"]
        elif change == "precision":
            model.double()
            images, state = images.double(), model.state_dict()
        else:
            model.load_state_dict(state, assign=change == "assigned")
        fresh = dpt.create_model("dpt_tiny").to(images.dtype).eval()
        fresh.load_state_dict(state)
        assert torch.equal(model(images), fresh(images))


def test_a_change_without_trace_is_noticed_after_training(model):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = model(images)
        model.train()
        model.backbone.vit.pos_embed.data.mul_(100)  # averaged weights are often put in place like this
        assert not torch.allclose(model.eval()(images), before)


def test_training_reaches_the_table(model, resampled):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)
    for _ in range(2):
        model.zero_grad()
        output = model(images)
        output.sum().backward()
        assert model.backbone.vit.pos_embed.grad.abs().sum() > 0
    torch.testing.assert_close(output, expected)
    assert len(resampled) == 3


def test_nothing_of_it_is_copied_or_saved(model):
    before = list(model.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert again.backbone.position_grid._resampled == {}
            assert torch.equal(again(images), expected)
    assert list(model.state_dict()) == before
    assert len(model.backbone.position_grid._resampled) == 1
