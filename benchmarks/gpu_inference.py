"""Inference of Table 9's models beside `transformers`' DPT in every precision: eager and as a CUDA graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gpu_bench import Bench, reason
from gpu_training import Row
from model import THEIRS
from torch import Tensor, nn

import dpt
from dpt.inference import recorded, tf32

INFERENCE = (
    "ms at batch 1", "CUDA graph", "error", "images/s", "at batch", "of the matrix rate", "larger batches"
)  # fmt: skip
TINY = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 256,
    "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [16, 32, 64, 64], "fusion_hidden_size": 32,
}  # fmt: skip
"""`dpt_tiny` in the terms of `transformers`."""

FORWARD = 3
"""FLOPs of a training step over those of its forward pass: a product has one for each factor's gradient."""

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Precision:
    """How a network computes: dtype of its weights, TF32, and theirs also by autocast, or channels last."""

    weights: torch.dtype = torch.float32
    tf32: bool = False
    autocast: bool = False
    layout: torch.memory_format = torch.contiguous_format


BFLOAT16 = Precision(torch.bfloat16, layout=torch.channels_last)
PRECISIONS = {
    "ours": {
        "fp32": Precision(),
        "tf32": Precision(tf32=True),
        "fp16": Precision(torch.float16),
        "bf16": BFLOAT16,
    },
    "transformers": {
        "fp32": Precision(),
        "tf32": Precision(tf32=True),
        "bf16 autocast": Precision(autocast=True),
        "bf16": Precision(torch.bfloat16),
        "bf16, channels last": BFLOAT16,
    },
}


def main_inference(bench: Bench) -> Iterator[Row]:
    """The paper's large and hybrid models."""
    yield from _rows(bench, bench.chosen("dpt_large", "dpt_hybrid"))


def other_inference(bench: Bench) -> Iterator[Row]:
    """The other models of Table 9."""
    yield from _rows(bench, bench.chosen("dpt_base", "midas_v21"))


def _rows(bench: Bench, names: tuple[str, ...]) -> Iterator[Row]:
    for name in names:
        for whose, make in (("ours", ours), ("transformers", theirs)):
            if whose == "transformers" and name not in (*THEIRS, "dpt_tiny"):
                continue
            made: list[nn.Module] = []  # by the first row, for all

            def measure(
                kind: Precision, name: str = name, make: Any = make, made: list[nn.Module] = made
            ) -> list[str]:
                if not made:
                    made.append(make(bench, name))
                return inference_cells(bench, name, made[0], kind)

            for title, kind in PRECISIONS[whose].items():
                yield f"{name}, {title}, {whose}", lambda kind=kind, measure=measure: measure(kind)


def ours(bench: Bench, name: str) -> nn.Module:
    """Our model `name`."""
    return bench.model(name).eval()


def theirs(bench: Bench, name: str) -> nn.Module:
    """That of `transformers`, with random weights."""
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(**THEIRS.get(name, TINY), image_size=bench.crop)
    with torch.device(bench.device):
        return DPTForDepthEstimation(config).eval()


def inference_cells(bench: Bench, name: str, module: nn.Module, precision: Precision) -> list[str]:
    """Cells of the columns `INFERENCE` for the `module` of the model `name`."""
    with tf32(precision.tf32), torch.inference_mode():
        network = in_precision(bench, module, precision)
        eager = network.eager if isinstance(network, dpt.FastDPT) else network
        one = images_of(bench, 1, precision)
        seconds = bench.seconds(lambda: eager(one))
        graph = _milliseconds_as_graph(bench, network, one)
        wrong = _error(module, network, one)
        rates, ended = _rates(bench, network, precision)
    rates[1] = 1 / seconds
    best = max(rates, key=lambda count: rates[count])
    share = rates[best] * bench.operations(name) / FORWARD / bench.peak
    return [f"{1000 * seconds:.2f}", graph, wrong, f"{rates[best]:.1f}", str(best), f"{share:.1%}", ended]


def in_precision(
    bench: Bench, module: nn.Module, precision: Precision, compiler: str | None = None
) -> Network:
    """A function from images to predictions, by a copy of the `module` where its weights change.

    It is compiled by a backend of `torch.compile`, if one is given: copies of compiled modules are not.
    """
    if isinstance(module, dpt.DPT):
        fast = dpt.FastDPT(module, bench.device, precision.weights, exact=not precision.tf32)
        return torch.compile(fast.eager, backend=compiler) if compiler else fast
    if (precision.weights, precision.layout) != (torch.float32, torch.contiguous_format):
        module = copy.deepcopy(module).to(precision.weights).to(memory_format=precision.layout)
    if compiler:
        module.compile(backend=compiler)

    def predict(images: Tensor) -> Tensor:
        # Without its cache, whose tensors would belong to a CUDA graph's memory.
        with torch.autocast(bench.device.type, torch.bfloat16, precision.autocast, cache_enabled=False):
            depth: Tensor = module(images).predicted_depth
        return depth

    return predict


def images_of(bench: Bench, count: int, precision: Precision) -> Tensor:
    """`count` random images."""
    shape = (count, 3, bench.crop, bench.crop)
    images = torch.randn(shape, device=bench.device, dtype=precision.weights)
    return images.contiguous(memory_format=precision.layout)


def _rates(bench: Bench, predict: Network, precision: Precision) -> tuple[dict[int, float], str]:
    """Batch size → images a second, and what ended the series of batches."""
    rates: dict[int, float] = {}
    last = 64 if precision.weights == torch.float32 else 128
    try:
        for count in (2,) if bench.tiny else (8, 32, last):
            images = images_of(bench, count, precision)
            rates[count] = count / bench.seconds(lambda images=images: predict(images))
    except Exception as error:  # memory, or a kernel's largest tensor
        return rates, f"{count}: {reason(error)}"
    return rates, ""


def _milliseconds_as_graph(bench: Bench, network: Network, images: Tensor) -> str:
    """Milliseconds of a prediction that is recorded once and replayed; ours does so by itself."""
    if bench.device.type != "cuda":
        return "-"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if isinstance(network, dpt.FastDPT):
                call: Network = network
            else:
                call = recorded(network, images)
            return f"{1000 * bench.seconds(lambda: call(images)):.2f}"
    except Exception as error:  # the other columns hold without it
        return reason(error)


def _error(module: nn.Module, network: Network, images: Tensor) -> str:
    """Largest difference of ours from float32 on the CPU, relative to the largest prediction there."""
    if not isinstance(module, dpt.DPT):
        return "-"
    found = network(images).cpu()
    expected = dpt.FastDPT(module)(images.cpu())
    return f"{(found - expected).abs().max() / expected.abs().max():.1e}"
