"""Gradients of all datasets from one pass are those of a pass for each dataset, in float64."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import dpt
from dpt.dataset_gradients import DatasetGradients, NotSeparable, couples_images
from dpt.losses import ScaleShiftInvariantLoss
from dpt.multi_objective import combine_gradients
from tests.support.models import SHALLOW_HYBRID

SMALL = {"embed_dim": 64, "depth": 4, "num_heads": 2}
MODELS = {
    "project": {},
    "add": {"readout": "add"},
    "ignore": {"readout": "ignore"},
    "standardised convolutions": SHALLOW_HYBRID,
    "layer scale": {"backbone": "vit_small_patch14_dinov2", "backbone_arguments": SMALL | {"img_size": 56}},
    "own position of the class token": {
        "backbone": "deit3_small_patch16_224", "backbone_arguments": SMALL | {"img_size": 64},
    },
    "rotary positions": {
        "backbone": "eva02_tiny_patch14_224", "backbone_arguments": SMALL | {"img_size": 56},
    },
    "relative positions": {
        "backbone": "beit_base_patch16_224", "backbone_arguments": SMALL | {"img_size": 64},
    },
    "stages": {
        "backbone": "convnext_atto", "backbone_arguments": {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]},
        "taps": ("R0", "R1", "R2", "R3"), "readout": "ignore",
    },
}  # fmt: skip
IMAGES = [2, 0, 3]


def build(overrides):
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny", **{"taps": (1, 2, 3, 4)} | overrides).double().train()


def losses_of(output):
    return output.square().mean((1, 2)) + output.mean((1, 2))


@pytest.mark.heavy
@pytest.mark.parametrize("again", [False, True], ids=["", "layers computed again"])
@pytest.mark.parametrize("kind", [*MODELS, "long"])
def test_they_are_those_of_a_pass_for_each_dataset(kind, again):
    model = build(MODELS.get(kind, {}))
    model.set_checkpointing(again)
    side = 4 * model.size_divisor if model.size_divisor == 14 else {"long": 256}.get(kind, 64)
    pixels = torch.randn(sum(IMAGES), 3, side, side, dtype=torch.float64)
    with (apart := DatasetGradients(IMAGES, pixels.device)):
        output = model(pixels.requires_grad_())
    found = apart.of_sums(losses_of(output))
    assert found.keys() == set(model.parameters())
    for index, part in enumerate(pixels.detach().split(IMAGES)):
        if not len(part):
            assert not any(rows[index].any() for rows in found.values())
            continue
        expected = torch.autograd.grad(losses_of(model(part)).sum(), list(found))
        for parameter, gradient in zip(found, expected, strict=True):
            assert found[parameter].shape == (3, *parameter.shape)
            torch.testing.assert_close(found[parameter][index], gradient, rtol=1e-9, atol=1e-12)


class Windows(nn.Module):
    """What the models above have not: windows of an image, a table of offsets, a weight used twice."""

    def __init__(self):
        super().__init__()
        self.linear, self.shared = nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.offset = nn.GroupNorm(2, 6), nn.Parameter(torch.randn(5, 6))
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)

    def forward(self, images):
        windows = (
            images.flatten(2).transpose(1, 2).unflatten(1, (4, 4)).flatten(0, 1)
        )  # 4 of 4 tokens an image
        windows = self.shared(self.linear(windows) + self.offset[[0, 1, 1, 4]] * 2)
        windows = self.norm(self.shared(windows).transpose(1, 2))
        rows = windows.transpose(1, 2).reshape(len(images), 4, 4, 6).permute(0, 3, 1, 2)
        return self.depthwise(rows).square().mean(1)


def test_windows_tables_and_shared_weights_are_taken_apart():
    torch.manual_seed(0)
    model, images = Windows().double(), torch.randn(5, 6, 4, 4, dtype=torch.float64)
    with (apart := DatasetGradients(IMAGES, images.device)):
        output = model(images.requires_grad_())
    found = apart.of_sums(losses_of(output))
    for index, part in enumerate(images.detach().split(IMAGES)):
        if len(part):
            expected = torch.autograd.grad(losses_of(model(part)).sum(), list(model.parameters()))
            for parameter, gradient in zip(model.parameters(), expected, strict=True):
                torch.testing.assert_close(found[parameter][index], gradient, rtol=1e-9, atol=1e-12)


def test_in_mixed_precision_they_differ_by_its_rounding():
    model = build({}).float()
    pixels = torch.randn(4, 3, 64, 64)

    def total(images):
        with torch.autocast("cpu", torch.bfloat16), (apart := DatasetGradients(images, pixels.device)):
            output = model(pixels.requires_grad_())
        found = apart.of_sums(losses_of(output.float()))
        assert {rows.dtype for rows in found.values()} == {torch.bfloat16, torch.float32}
        return torch.cat([found[parameter].float().sum(0).flatten() for parameter in model.parameters()])

    with torch.autocast("cpu", torch.bfloat16):
        output = model(pixels.detach())
    plain = torch.autograd.grad(losses_of(output.float()).sum(), list(model.parameters()))
    expected = torch.cat([gradient.flatten() for gradient in plain])
    for images in ([4], [1, 2, 1]):
        assert (total(images) - expected).norm() < 0.02 * expected.norm()


def test_what_cannot_be_taken_apart_is_refused():
    assert couples_images(dpt.create_model("dpt_small").train())
    assert not couples_images(dpt.create_model("dpt_small").eval())
    weight, batch = nn.Parameter(torch.randn(3, 3)), torch.randn(4, 3, requires_grad=True)
    refused = {
        "matmul": lambda: torch.matmul(batch, weight),
        "batch_norm": lambda: F.batch_norm(batch, None, None, weight[0], training=True),
        "a batch": lambda: batch.repeat(2, 1)[:7] + weight[0],
        "a parameter": lambda: batch[:3] + weight[None, None],
    }
    for reason, call in refused.items():
        with pytest.raises(NotSeparable, match=reason), DatasetGradients([1, 3], batch.device):
            call()


class Calls(TorchDispatchMode):
    """Counts calls of PyTorch's operations that are no views: launches, on a GPU."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            self.counts[str(function)] += 1
        return function(*args, **kwargs or {})


@pytest.mark.heavy
def test_a_step_makes_at_most_twice_the_calls_of_plain_averaging():
    """What a step costs, `benchmarks/model.py` measures; what a GPU has to be told is counted here."""
    torch.manual_seed(0)
    images = [1, 2, 1, 3, 2, 2, 1, 1, 1, 2]
    model, loss = dpt.create_model("dpt_tiny", image_size=256), ScaleShiftInvariantLoss()
    pixels, target = torch.randn(sum(images), 3, 256, 256), torch.rand(sum(images), 256, 256)
    valid = torch.ones_like(target, dtype=torch.bool)
    passes = []
    model.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    with Calls() as plain:
        loss(model(pixels), target, valid).mean().backward()
    with Calls() as multi:
        with (apart := DatasetGradients(images, pixels.device)):
            output = model(pixels.requires_grad_())
        combine_gradients(apart.of_sums(loss(output, target, valid)), images, list(model.parameters()))
    assert passes == [16, 16]
    assert multi.counts.total() <= 2 * plain.counts.total()
