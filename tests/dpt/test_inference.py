"""`FastDPT` computes what its model computes, and its folding, chunks and graphs are what they say."""

import copy
import functools
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers import LayerScale
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dpt
from dpt import inference
from dpt.folding import fold
from dpt.inference import Graphs, tf32
from dpt.layers.same_padding import EvenStdConv2d
from tests.support.models import SHALLOW_HYBRID
from tests.support.waiting import BlockingCopies, Waits

DINO = {
    "backbone": "vit_small_patch14_dinov2", "final_norm": True, "position_interpolation": "bicubic",
    "backbone_arguments": {"img_size": 56, "embed_dim": 64, "depth": 4, "num_heads": 2}, "readout": "ignore",
}  # fmt: skip
ROTARY = {
    "backbone": "vit_small_patch16_dinov3", "taps": (1, 2, 3, 4),
    "backbone_arguments": {"img_size": 64, "embed_dim": 64, "depth": 4, "num_heads": 2},
}  # fmt: skip
SEGMENTATION = {"task": "segmentation", "batch_norm": True, "auxiliary": True, "classes": 5}
KINDS = {
    "ViT": ("dpt_tiny", {}),
    "hybrid": ("dpt_tiny", SHALLOW_HYBRID),
    "hybrid as released": ("dpt_tiny", {**SHALLOW_HYBRID, "weight_standardisation": "released"}),
    "DINOv2": ("dpt_tiny", {**DINO, "max_depth": 20.0}),
    "rotary": ("dpt_tiny", ROTARY),
    "ResNet": ("dpt_small", {"scale": 0.3, "shift": 0.2, "invert": True}),
    "MiDaS": ("dpt_small", {"fusion": "midas", "head_align_corners": False}),
    "BEiT": (
        "dpt_tiny",
        {
            "backbone": "beit_base_patch16_224",
            "taps": (1, 2, 3, 4),
            "backbone_arguments": {"embed_dim": 64, "depth": 4, "num_heads": 2},
        },
    ),
    "EfficientNet": ("dpt_small", {"backbone": "efficientnet_b0", "backbone_arguments": {}}),
    "classes": ("dpt_tiny", SEGMENTATION),
}


def made(kind: str) -> dpt.DPT:
    """A model of a kind whose norms and scales are those of no identity."""
    return copy.deepcopy(_made(kind))


@functools.cache
def _made(kind: str) -> dpt.DPT:
    torch.manual_seed(0)
    name, overrides = KINDS[kind]
    model = dpt.create_model(name, **overrides)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
        if isinstance(module, LayerScale):
            nn.init.normal_(module.gamma)
    return model.eval()


def images_for(model: dpt.DPT) -> torch.Tensor:
    side = 2 * model.size_divisor
    return torch.randn(2, 3, side, 2 * side, generator=torch.Generator().manual_seed(1))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_computes_what_its_model_computes(kind):
    """In bfloat16 the error is that of autocast on the same models, 1.1e-4 to 6.4e-3."""
    model = made(kind)
    images = images_for(model)
    fast = {
        dtype: dpt.FastDPT(model, dtype=dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)
    }
    found = {dtype: one(images) for dtype, one in fast.items()}
    with torch.no_grad():
        expected = model.double()(images.double())
    assert {one.dtype for one in found.values()} == {torch.float32}
    assert error(found[torch.float64], expected) < 1e-7
    assert error(found[torch.float32], expected) < 2e-6
    assert 1e-5 < error(found[torch.bfloat16], expected) < 1e-2
    for module in fast[torch.float32].modules():
        assert not isinstance(module, nn.BatchNorm2d | LayerScale)
        assert "Std" not in type(module).__name__


def test_weights_have_the_chosen_precision_but_for_the_last_layer():
    fast = dpt.FastDPT(made("ResNet"), dtype=torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in fast.named_parameters()}
    others = {dtype for name, dtype in kinds.items() if not name.startswith("head.conv3.")}
    assert (others, kinds["head.conv3.weight"]) == ({torch.bfloat16}, torch.float32)


@pytest.mark.parametrize("conv", [
    timm.layers.StdConv2d(6, 8, 3, stride=2, bias=True),
    timm.layers.StdConv2dSame(6, 8, 3, stride=2),
    timm.layers.StdConv2dSame(6, 8, 1),
    timm.layers.ScaledStdConv2d(6, 8, 3, groups=2),
    timm.layers.ScaledStdConv2dSame(6, 8, 5, stride=2, gamma=1.7),
    EvenStdConv2d(timm.layers.StdConv2dSame(6, 8, 7, stride=2), "timm"),
    EvenStdConv2d(timm.layers.StdConv2dSame(6, 8, 3, stride=2, bias=True), "released"),
    EvenStdConv2d(timm.layers.StdConv2dSame(6, 8, 1), "released"),
])  # fmt: skip
def test_standardised_convolutions_are_the_same_to_the_bit(conv):
    network = nn.Sequential(conv).eval()
    images = torch.randn(2, 6, 10, 14)
    with torch.no_grad():
        expected = network(images)
        fold(network)
        assert torch.equal(network(images), expected)
    assert not any("Std" in type(module).__name__ for module in network.modules())


class Odd(nn.Module):
    """Norms that must stay: the convolution has another reader, is used twice, or values decide."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        convolved = self.conv(x)
        if self.kind == "read twice":
            return self.norm(convolved) + convolved
        if self.kind == "called twice":
            return self.norm(self.conv(convolved))
        if self.kind == "activated":
            return self.norm(convolved.relu())
        return self.norm(convolved) if x.mean() > 0 else convolved


@pytest.mark.parametrize("kind", ["read twice", "called twice", "activated", "decided by values"])
def test_what_cannot_be_folded_stays(kind):
    torch.manual_seed(0)
    network = nn.Sequential(Odd(kind)).eval()
    images = [torch.rand(1, 3, 8, 8), -torch.rand(1, 3, 8, 8)]
    with torch.no_grad():
        expected = [network(one) for one in images]
        fold(network)
        for one, before in zip(images, expected, strict=True):
            torch.testing.assert_close(network(one), before)
    assert isinstance(network[0].norm, nn.BatchNorm2d)


def test_it_is_neither_saved_nor_trained_and_its_model_stays_as_it_was(tmp_path):
    model = made("ResNet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = dpt.FastDPT(model.train(), dtype=torch.bfloat16)
    assert not fast.training
    with pytest.raises(RuntimeError, match="folded weights"):
        dpt.save_model(fast, tmp_path / "model")
    with pytest.raises(RuntimeError, match="for inference only"):
        fast.train()
    assert not fast.eval().training
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---- chunks


class Largest(TorchDispatchMode):
    """Context that counts the elements of the largest result."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = (one for one in tree_leaves(result) if isinstance(one, torch.Tensor))
        self.elements = max([self.elements, *(one.numel() for one in tensors)])
        return result


@pytest.mark.parametrize("kind", ["ViT", "hybrid", "ResNet", "classes"])
def test_chunks_keep_every_tensor_below_the_limit(kind, monkeypatch):
    model = made(kind)
    fast, images = dpt.FastDPT(model), images_for(model).repeat(3, 1, 1, 1)
    whole = fast(images)
    monkeypatch.setattr(inference, "MOST_ELEMENTS", 4 * 32 * images.shape[-2] * images.shape[-1])
    assert fast.most_images(*images.shape[-2:]) == 4
    with Largest() as largest, torch.inference_mode():
        for part in images.chunk(2):
            fast.eager(part)
    assert largest.elements <= inference.MOST_ELEMENTS
    parts = []
    monkeypatch.setattr(fast, "_run", lambda part: parts.append(len(part)) or fast.eager(part))
    torch.testing.assert_close(fast(images), whole)
    assert parts == [3, 3]


def test_the_batch_that_failed_on_a_gpu_is_taken_apart():
    """[128, 128, 384, 384] has 2.4e9 elements; of [113, 128, 384, 384] it is 2.13e9, below 2.147e9."""
    fast = dpt.FastDPT(made("ViT"))
    fast.config = dpt.zoo.MODELS["dpt_large"].config
    assert fast.most_images(384, 384) == 113
    assert fast.most_images(8192, 8192) == 1
    fast.config = dpt.zoo.MODELS["dpt_large_ade20k"].config
    assert fast.most_images(480, 480) == math.floor((2**31 - 1) / (150 * 480**2))


# ---- CUDA graphs, as far as a CPU can tell


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"rotary"}))
def test_what_a_graph_records_neither_reads_nor_copies(kind):
    """timm makes rotary positions on the CPU: there `FastDPT` warns, and works without a graph."""
    model = made(kind)
    fast, images = dpt.FastDPT(model), images_for(model)
    fast(images)  # resampled tables of positions are kept
    with torch.inference_mode(), Waits() as waits, BlockingCopies() as copies:
        fast.eager(images)
    assert not waits.found + copies.found, (waits.found + copies.found)[0]


def recording(failing: tuple[int, ...] = ()) -> tuple[Graphs, list[str]]:
    """Graphs of a function that says how it is called, for arguments of different lengths."""
    said: list[str] = []

    def record(x: torch.Tensor) -> inference.Network:
        if len(x) in failing:
            raise RuntimeError("not permitted\nwhen capturing")
        said.append(f"record {len(x)}")
        return lambda y: said.append(f"replay {len(y)}") or y

    return Graphs(record, lambda x: said.append(f"eager {len(x)}") or x), said


def test_shapes_that_repeat_are_recorded_and_replayed():
    graphs, said = recording()
    for length in (1, 2, 1, 1, 2):
        graphs(torch.zeros(length))
    assert said == ["eager 1", "eager 2", "record 1", "replay 1", "replay 1", "record 2", "replay 2"]


def test_the_graph_used_least_recently_makes_room():
    graphs, said = recording()
    for length in (1, 1, 2, 2, 3, 3, 4, 4, 1, 5, 5, 2, 1):
        graphs(torch.zeros(length))
    assert said[-5:] == ["eager 5", "record 5", "replay 5", "eager 2", "replay 1"]


def test_five_sizes_in_turn_keep_four_graphs():
    graphs, said = recording()
    for _ in range(4):
        for length in range(1, 6):
            graphs(torch.zeros(length))
    assert [line for line in said if line.startswith("record")] == [f"record {n}" for n in range(1, 5)]
    assert said[-5:] == ["replay 1", "replay 2", "replay 3", "replay 4", "eager 5"]


def test_what_cannot_be_recorded_is_computed_and_said_once():
    graphs, said = recording(failing=(3,))
    graphs(torch.zeros(3))
    with pytest.warns(UserWarning, match=r"no CUDA graph of \(3,\), .*: not permitted$"):
        graphs(torch.zeros(3))
    graphs(torch.zeros(3))
    assert said == ["eager 3"] * 3


def test_a_recording_copies_its_argument_and_its_result(monkeypatch):
    """With a graph that repeats, as CUDA's do, its arithmetic on the same memory."""
    done, memory = [], []

    def call(x: torch.Tensor) -> torch.Tensor:
        done.append("call")
        memory.append((x, 2 * x))
        return memory[-1][1]

    class Graph:
        def replay(self) -> None:
            argument, result = memory[-1]
            torch.mul(argument, 2, out=result)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {"Stream": lambda device: stream, "current_stream": lambda: stream, "CUDAGraph": Graph}
    fakes |= {"stream": lambda stream: nullcontext(), "graph": lambda graph, **named: nullcontext()}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    images = torch.ones(3)
    replay = inference.recorded(call, images, lambda: done.append("held"))
    first, second = replay(images), replay(torch.full((3,), 5.0))
    assert done == ["call", "held", "call"]
    assert (images.tolist(), first.tolist(), second.tolist()) == ([1] * 3, [2] * 3, [10] * 3)


def test_tf32_is_on_in_the_context_only():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for enabled in (True, False):
        with tf32(enabled):
            assert [backend.allow_tf32 for backend in backends] == [enabled, enabled]
        assert [backend.allow_tf32 for backend in backends] == before


@pytest.mark.parametrize("exact", [False, True])
def test_tf32_is_used_unless_exact(exact, monkeypatch):
    fast, seen = dpt.FastDPT(made("ViT"), exact=exact), []
    monkeypatch.setattr(fast, "_run", lambda x: seen.append(torch.backends.cuda.matmul.allow_tf32) or x)
    fast(torch.zeros(1, 3, 32, 32))
    assert seen == [not exact]
