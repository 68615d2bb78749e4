"""Learning-rate schedules, as a pure function of the step: there is no state to save or to lose."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "poly", "cosine"]
"""`constant` is the paper's for depth; `poly` (power 0.9) the paper's for segmentation (section 4.2)."""


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
