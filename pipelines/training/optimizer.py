"""From the config to the optimiser: Adam or SGD with two learning rates, and their schedule.

The schedule is a pure function of the step, so checkpoints hold no scheduler state.
"""

from __future__ import annotations

import math

import torch

import dpt
from pipelines.config import Schedule, TrainConfig


def create_optimizer(model: dpt.DPT, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a run's `config`: Adam for depth (section 4.1), SGD for segmentation (section 4.2).

    It has two parameter groups with their base rates as `initial_lr`: `backbone_lr` is that of the backbone
    of `model`, `decoder_lr` that of all other layers. Fused, it can skip a step on the device: where its
    attribute `found_inf` is 1, as PyTorch's gradient scaler sets it.
    """
    settings = config.optimizer
    groups = dpt.parameter_groups(model, settings.backbone_lr, settings.decoder_lr)
    groups = [{**group, "initial_lr": group["lr"]} for group in groups]
    if config.task == "segmentation":
        sgd = config.segmentation
        return torch.optim.SGD(groups, momentum=sgd.momentum, weight_decay=sgd.weight_decay, fused=True)
    return torch.optim.Adam(groups, betas=settings.betas, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, done: int) -> None:
    """Set the rates of `optimizer` for the step after `done` steps, by the schedule of the run's `config`."""
    settings = config.optimizer
    factor = learning_rate_factor(done, config.steps, settings.schedule, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def learning_rate_factor(step: int, steps: int, schedule: Schedule, warmup: int = 0) -> float:
    """Factor of the base learning rates in one step.

    Args:
        step: number of steps done before, from 0.
        steps: of the whole run.
        schedule: `constant`; `poly`, (1 − step/steps)^0.9; or `cosine`, half a period from 1 to 0.
        warmup: number of first steps in which the factor also rises linearly from 1/warmup to 1.

    Returns:
        a number in (0, 1].
    """
    rising = (step + 1) / warmup if step < warmup else 1.0
    done = step / steps
    falling = {"poly": (1 - done) ** 0.9, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return rising * falling.get(schedule, 1.0)
