"""From the config to the optimiser: Adam or SGD with two learning rates, and their schedule.

The schedule is a pure function of the step, so there is no state to save or to lose.
"""

from __future__ import annotations

import math

import torch

import dpt
from pipelines.config import Schedule, TrainConfig


def learning_rate_factor(step: int, steps: int, schedule: Schedule, warmup: int = 0) -> float:
    """What the base learning rates are multiplied by in a step.

    Args:
        step: number of steps done before, from 0.
        steps: of the whole run.
        warmup: the first so many steps rise linearly to the full rate.

    Returns:
        a number in (0, 1].
    """
    rising = (step + 1) / warmup if step < warmup else 1.0
    done = step / steps
    falling = {
        "constant": 1.0,
        "poly": (1 - done) ** 0.9,
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }[schedule]
    return rising * falling


def create_optimizer(model: dpt.DPT, config: TrainConfig) -> torch.optim.Optimizer:
    """The task's optimiser: Adam for depth (section 4.1), SGD with momentum for segmentation (section 4.2).

    Args:
        model: its backbone learns at `config.optimizer.backbone_lr`, all else at `decoder_lr`.
        config: of the run; `config.task` chooses the optimiser.

    Returns:
        an optimiser of two parameter groups, each with its base rate as `initial_lr`.
    """
    settings = config.optimizer
    groups = [
        {**group, "initial_lr": group["lr"]}
        for group in dpt.parameter_groups(model, settings.backbone_lr, settings.decoder_lr)
    ]
    if config.task == "segmentation":
        sgd = config.segmentation
        return torch.optim.SGD(groups, momentum=sgd.momentum, weight_decay=sgd.weight_decay)
    return torch.optim.Adam(groups, betas=settings.betas)


def set_learning_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, done: int) -> None:
    """Give every parameter group its learning rate for the step after `done` steps."""
    settings = config.optimizer
    factor = learning_rate_factor(done, config.steps, settings.schedule, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]
