"""What ends a run early, or is about to: the driver's wish to stop, a machine that will be taken away.

Ranks must agree in which step they react, for saving and stopping are common to all. Each step has one small
reduction for it; only rank 0 asks the driver, and no rank asks it in every step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import torch
import torch.distributed

LOOK_SECONDS = 5.0
"""How often a notice is looked for; clouds give them half a minute to two minutes ahead."""

AGAIN_SECONDS = 30.0
"""How often a run whose machine will be taken saves again, as long as it is not."""

_ASK_SECONDS = 0.5


class Interruptions:
    """Tells a rank, step by step, whether to stop and whether to save out of turn.

    Args:
        board: the driver's `pipelines.training.board.ProgressBoard`.
        device: where the ranks' reductions take place.
        say: takes a line for the user.
    """

    def __init__(
        self, board: Any, rank: int, world_size: int, device: torch.device, say: Callable[[str], None]
    ) -> None:
        self._watcher = _StopWatcher(board) if rank == 0 else None
        self._world_size, self._device, self._say = world_size, device, say
        self._next_look = 0.0

    def after_step(self, gives_up: bool = False) -> tuple[bool, bool]:
        """Whether to stop, and whether to save at once; the same on all ranks, which must all ask.

        Args:
            gives_up: a reason of the rank's own to stop.
        """
        wanted = self._watcher is not None and self._watcher.stop_requested
        stops, looks = self._agreed(wanted or gives_up, time.monotonic() >= self._next_look)
        return stops, looks and self._is_noticed()

    def _is_noticed(self) -> bool:
        """Whether the cloud has announced that it takes one of the run's machines."""
        notice = ray.train.get_preemption_info()  # waits for all ranks
        self._next_look = time.monotonic() + (LOOK_SECONDS if notice is None else AGAIN_SECONDS)
        if notice is not None:
            ranks = ", ".join(map(str, notice.preempted_ranks))
            self._say(f"the machine of rank {ranks} is about to be taken: saving")
        return notice is not None

    def _agreed(self, *flags: bool) -> list[bool]:
        """Which flags are set on any rank."""
        if self._world_size == 1:
            return list(flags)
        verdict = torch.tensor(flags, dtype=torch.float32, device=self._device)
        torch.distributed.all_reduce(verdict, torch.distributed.ReduceOp.MAX)
        return [bool(flag) for flag in verdict.tolist()]


class _StopWatcher:
    """Knows, without asking in every step, whether the driver wants the run to stop."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self.stop_requested = False
        threading.Thread(target=self._watch, name="stop", daemon=True).start()

    def _watch(self) -> None:
        while not self.stop_requested:
            time.sleep(_ASK_SECONDS)
            try:
                self.stop_requested = ray.get(self._board.stop_requested.remote())
            except ray.exceptions.RayError:  # the driver is gone, and the board with it: Ray ends us too
                return
