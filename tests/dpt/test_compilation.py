"""Layers that are alike share one program."""

import pytest
import torch

import dpt
from dpt.compilation import compile_regions
from tests.support.models import SHALLOW_HYBRID


@pytest.mark.parametrize(
    ("name", "settings"),
    [("dpt_tiny", {}), ("dpt_tiny", SHALLOW_HYBRID), ("dpt_small", {})],
    ids=["transformer", "hybrid", "ResNet"],
)
def test_a_model_compiled_by_regions_predicts_and_learns_the_same(name, settings):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = dpt.create_model(name, **settings).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    parameters = list(model.parameters())

    def run():
        output = model(images)
        return output.detach(), torch.autograd.grad(output.square().mean(), parameters, allow_unused=True)

    expected, gradients = run()
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph

    compile_regions(model, backend=backend)
    found, same = run()
    torch.testing.assert_close(found, expected)
    for gradient, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(gradient, other)
    assert len(traced) == 4, "one for all layers, and the three parts of the decoder"
