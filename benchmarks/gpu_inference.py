"""Inference of Table 9's models beside `transformers`' DPT in every precision: eager and as a CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gpu_bench import Bench, reason, tf32
from gpu_training import Row
from model import THEIRS
from torch import Tensor, nn

INFERENCE = ("ms at batch 1", "CUDA graph", "images/s", "at batch", "of the matrix rate", "larger batches")
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
    """How a network computes: dtype of its weights, autocast to bfloat16, TF32, channels last."""

    weights: torch.dtype = torch.float32
    autocast: bool = False
    tf32: bool = False
    layout: torch.memory_format = torch.contiguous_format


PRECISIONS = {
    "fp32": Precision(),
    "tf32": Precision(tf32=True),
    "bf16 autocast": Precision(autocast=True),
    "bf16 weights": Precision(torch.bfloat16),
    "bf16 weights, channels last": Precision(torch.bfloat16, layout=torch.channels_last),
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

            for title, kind in PRECISIONS.items():
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
    with tf32(precision.tf32), torch.no_grad():
        predict = in_precision(bench, module, precision)
        one = images_of(bench, 1, precision)
        eager = bench.seconds(lambda: predict(one))
        graph = _milliseconds_as_graph(bench, lambda: predict(one))
        rates, ended = _rates(bench, predict, precision)
    rates[1] = 1 / eager
    best = max(rates, key=lambda count: rates[count])
    share = rates[best] * bench.operations(name) / FORWARD / bench.peak
    return [f"{1000 * eager:.2f}", graph, f"{rates[best]:.1f}", str(best), f"{share:.1%}", ended]


def in_precision(
    bench: Bench, module: nn.Module, precision: Precision, compiler: str | None = None
) -> Network:
    """A function from images to predictions, by a copy of the `module` where its weights change.

    It is compiled by a backend of `torch.compile`, if one is given: copies of compiled modules are not.
    """
    if (precision.weights, precision.layout) != (torch.float32, torch.contiguous_format):
        module = copy.deepcopy(module).to(precision.weights).to(memory_format=precision.layout)
    if compiler:
        module.compile(backend=compiler)

    def predict(images: Tensor) -> Tensor:
        # Without its cache, whose tensors would belong to a CUDA graph's memory.
        with torch.autocast(bench.device.type, torch.bfloat16, precision.autocast, cache_enabled=False):
            output = module(images)
        depth: Tensor = output if isinstance(output, Tensor) else output.predicted_depth
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
    try:
        for count in (2,) if bench.tiny else (8, 32, 64):
            images = images_of(bench, count, precision)
            rates[count] = count / bench.seconds(lambda images=images: predict(images))
    except Exception as error:  # memory, or a kernel's largest tensor
        return rates, f"{count}: {reason(error)}"
    return rates, ""


def _milliseconds_as_graph(bench: Bench, call: Callable[[], object]) -> str:
    """Milliseconds of a `call` that is recorded once and replayed."""
    if bench.device.type != "cuda":
        return "-"
    try:
        return f"{1000 * bench.seconds(recorded(call)):.2f}"
    except Exception as error:  # the other columns hold without it
        return reason(error)


def recorded(call: Callable[[], object]) -> Callable[[], object]:
    """A `call` as a CUDA graph, recorded on a stream of its own after a warm-up there, as CUDA requires."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
