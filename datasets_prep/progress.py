"""How far a data job is; the same for all of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a job: of `total` samples or frames `done` are finished, and `rejected` of these left out."""

    done: int
    total: int
    rejected: int
