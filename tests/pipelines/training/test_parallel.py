"""Two ranks that share a batch normalise as one rank that has all of it."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.training.parallel import CpuSyncBatchNorm, synchronise_norms
from tests.support.two_ranks import run_in_two_ranks

SHARES = (slice(0, 3), slice(3, 4))


def network() -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU())
    return nn.Sequential(block, nn.Conv2d(5, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=0.3)).double()


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    # Each image brighter than the one before: statistics of a share are not those of the whole.
    noise = torch.randn(4, 3, 12, 10, generator=generator, dtype=torch.float64)
    return noise + torch.arange(4.0)[:, None, None, None]


def backward(model: nn.Module, chosen: slice, world_size: int) -> None:
    for _ in range(2):  # statistics of the second follow those of the first
        sizes = model(images()[chosen]).relu().mean(dim=(1, 2, 3))
        (sizes.sum() * world_size / 4).backward()


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    return gradients | {name: buffer.clone() for name, buffer in model.named_buffers()}


def rank_of_two(rank: int) -> dict[str, torch.Tensor]:
    model = network()
    synchronise_norms(model)
    backward(DistributedDataParallel(model), SHARES[rank], 2)
    return state_of(model)


@pytest.mark.heavy
def test_two_ranks_have_the_gradients_and_statistics_of_one(tmp_path):
    whole = network()
    backward(whole, slice(0, 4), 1)
    expected = state_of(whole)
    for found in run_in_two_ranks(rank_of_two, tmp_path):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)
    # Without it the same ranks would have other statistics; else this test would prove nothing.
    alone = network()
    backward(alone, SHARES[0], 1)
    own, shared = state_of(alone)["0.1.running_mean"], expected["0.1.running_mean"]
    assert (own - shared).abs().max() > 0.01 * shared.abs().max()


def test_parameters_and_names_stay():
    model = network()
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    synchronise_norms(model)
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [type(module) for module in norms] == [CpuSyncBatchNorm] * 2
    assert norms[1].momentum == 0.3


@pytest.mark.parametrize("training", [True, False])
def test_one_process_normalises_as_pytorch_does(training):
    plain, shared = nn.BatchNorm2d(3), CpuSyncBatchNorm(3)
    x = torch.randn(2, 3, 4, 5)
    for norm in (plain, shared):
        norm.train(training)
    torch.testing.assert_close(shared(x), plain(x))
    torch.testing.assert_close(shared.running_var, plain.running_var)
