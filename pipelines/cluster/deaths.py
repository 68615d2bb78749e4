"""What ended a training process, in one line: Ray Train restarts the ranks without a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ray.train import UserCallback

_SIGNS = {
    r"OutOfMemory|memory monitor|low on memory": "was killed: its machine ran out of memory",
    r"DataLoader worker .* (?:killed|exited)|Can't get (?:next|reply)": "lost a loading process",
    r"HealthCheckTimeout": "did not answer, and is taken for dead",
    r"[Nn]ode .*(?:died|dead|terminated|removed)|NodeDied|owner's node": "was lost with its machine",
    r"Worker(?:Crashed|Died)|ActorDied|ActorUnavailable|actor (?:died|is dead)|SIGKILL": (
        "died: its process was killed, such as by the system for want of memory"
    ),
}
"""Pattern in an error's type or text → what happened; the first that is found counts."""


class SayingWhatDied(UserCallback):
    """Writes a line about every failure to the `board` of a run; Ray Train calls it in its controller."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """See `ray.train.UserCallback`."""
        self._board.write.remote(f"{what_died(worker_exceptions)}: restarting from the newest checkpoint")


def any_died(failures: Mapping[int, Exception]) -> bool:
    """Whether a process died, of the `failures` of ranks; else all are errors that need their traceback."""
    return any(_cause(error) in _SIGNS.values() for error in failures.values())


def what_died(failures: Mapping[int, Exception]) -> str:
    """The first of the `failures` of ranks, by number, that is more than the loss of another rank."""
    known = [(rank, _cause(error)) for rank, error in sorted(failures.items())]
    # A rank whose partner died fails too, in the collective that both were in.
    rank, cause = next(((rank, cause) for rank, cause in known if cause in _SIGNS.values()), known[0])
    return f"rank {rank} {cause}"


def _cause(error: Exception) -> str:
    inner = getattr(error, "cause", None) or getattr(error, "health_check_failure", None) or error
    text = f"{type(error).__name__} {type(inner).__name__} {error}"
    found = (cause for sign, cause in _SIGNS.items() if re.search(sign, text))
    lines = str(inner).strip().splitlines() or [""]
    return next(found, f"failed with {type(inner).__name__}: {lines[-1]:.200}")
