"""Every parameter takes part in every step, so DistributedDataParallel need not search for unused ones."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import dpt
from tests.support.models import SHALLOW_HYBRID
from tests.support.two_ranks import run_in_two_ranks

MODELS = {
    "transformer": {},
    "hybrid": SHALLOW_HYBRID,
    "convolutional": {"backbone": "resnet18", "fusion": "midas"},
    "segmentation": {"task": "segmentation", "classes": 5, "auxiliary": True, "batch_norm": True},
}


def loss_of(output):
    return sum(part.square().mean() for part in (output if isinstance(output, tuple) else (output,)))


def steps_of(kind, images):
    """Gradients of two steps; the second fails under DistributedDataParallel if the first left one out."""
    torch.manual_seed(0)
    model = dpt.create_model("dpt_tiny", **MODELS[kind]).train()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.Dropout)):
            module.eval()  # what they do depends on the rank's images, and on chance
    network = DistributedDataParallel(model) if dist.is_initialized() else model
    for _ in range(2):
        model.zero_grad()
        loss_of(network(images)).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def rank_of_two(rank):
    return {kind: steps_of(kind, batch()[rank::2]) for kind in MODELS}


def batch():
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    return run_in_two_ranks(rank_of_two, tmp_path_factory.mktemp("ranks"))[0]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", MODELS)
def test_two_ranks_give_the_gradient_of_one(kind, gradients):
    expected = steps_of(kind, batch())
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradients[kind], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
