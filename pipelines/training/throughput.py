"""How much of the hardware a training run uses: its arithmetic against the rate of a matrix product."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import dpt

_SIDE = {"cpu": 1536, "cuda": 8192}
_ROUNDS = 4
_BACKWARD = 2
"""The backward pass has a product for the gradient of each factor of a product."""


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of this process's fastest large matrix product, measured now."""
    side = _SIDE[device.type]
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_ROUNDS):
        _wait_for(device)
        start = time.perf_counter()
        a @ a
        _wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def training_operations(model: dpt.DPT, crop: tuple[int, int]) -> float:
    """Floating-point operations of a training step on one crop, activation checkpointing left out."""
    training = model.training
    image = next(model.parameters()).new_zeros(1, 3, *crop)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    model.train(training)
    return float(counter.get_total_flops() * (1 + _BACKWARD))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
