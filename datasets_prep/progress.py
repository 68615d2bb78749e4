"""How far a data job is; the same for all of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a job after a finished task.

    Attributes:
        done: samples or frames that are finished, the rejected ones included.
        total: all of them.
        rejected: how many were left out.
    """

    done: int
    total: int
    rejected: int
