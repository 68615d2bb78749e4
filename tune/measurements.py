"""Table 9: how many parameters a model has, and how long it takes for one square image.

Latency does not depend on the weights, so nothing has to be trained; but on what else the machine does, so it
is measured when no trial runs, one model after the other.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

import dpt
from pipelines.config import ModelSection
from pipelines.training.loop import build_model

_WARM_UP = 0.1
_MILLION = 1e6


@dataclass(frozen=True)
class Latency:
    """What was measured, and on what: the average time of a prediction in milliseconds."""

    milliseconds: float
    parameters_millions: float
    device: str


def count_parameters(model: dpt.DPT) -> float:
    """Parameters in millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / _MILLION


def measure_latency(section: ModelSection, side: int, runs: int, use_gpu: bool, threads: int) -> Latency:
    """Measure on one of the cluster's GPUs, or on so many cores.

    Args:
        side: of the square image in pixels.
        runs: predictions to average over.
    """
    task = _measure.options(num_cpus=1 if use_gpu else threads, num_gpus=1 if use_gpu else 0)
    found: Latency = ray.get(task.remote(section.model_dump(), side, runs, use_gpu, threads))
    return found


@ray.remote
def _measure(section: dict[str, Any], side: int, runs: int, use_gpu: bool, threads: int) -> Latency:
    torch.set_num_threads(threads)
    device = torch.device("cuda" if use_gpu else "cpu")
    untrained = ModelSection(**section).model_copy(update={"pretrained": False})
    model = build_model(untrained, (side, side)).to(device).eval()
    name = torch.cuda.get_device_name(device) if use_gpu else f"{_processor()}, {threads} threads"
    return Latency(1000 * seconds_a_prediction(model, side, runs), count_parameters(model), name)


@torch.inference_mode()
def seconds_a_prediction(model: dpt.DPT, side: int, runs: int) -> float:
    """Average time of predicting one image in float32, after warming up."""
    device = next(model.parameters()).device
    image = torch.rand((1, 3, side, side), device=device)
    for _ in range(max(1, round(_WARM_UP * runs))):
        model(image)
    _finish(device)
    start = time.perf_counter()
    for _ in range(runs):
        model(image)
    _finish(device)
    return (time.perf_counter() - start) / runs


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
