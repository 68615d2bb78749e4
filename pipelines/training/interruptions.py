"""What ends a run early: a request of the driver to stop, a preemption notice of the cloud.

Ranks must agree on the step in which they react, because all of them take part in saving and stopping. Each
step has one small reduction for it; only rank 0 asks the driver, in the background.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import torch

from pipelines.cluster.polling import POLL_SECONDS
from pipelines.training.host_copy import HostCopy, lag
from pipelines.training.ranks import Ranks

LOOK_SECONDS = 5.0
"""Seconds between checks for a preemption notice; clouds give it half a minute to two minutes ahead."""

AGAIN_SECONDS = 30.0
"""Seconds between checkpoints while a preemption notice is pending."""


class Interruptions:
    """Decides after each step, alike on all ranks, whether to stop and whether to save out of turn.

    Args:
        board: the driver's `pipelines.training.board.ProgressBoard` actor.
        ranks: this rank among all.
        device: where the ranks' reductions take place.
        say: takes a line for the user.
    """

    def __init__(self, board: Any, ranks: Ranks, device: torch.device, say: Callable[[str], None]) -> None:
        self._board, self._ranks, self._device, self._say = board, ranks, device, say
        self._stop_requested = False
        self.heeds = True
        """Whether `after_step` is called soon: not while the run validates."""
        self._next_look = 0.0
        self._raised: deque[HostCopy] = deque()
        if ranks.is_first:
            threading.Thread(target=self._watch, name="stop", daemon=True).start()

    def after_step(self, gives_up: bool = False) -> tuple[bool, bool]:
        """Whether to stop, and whether to save now; the same on all ranks, all of which must call it.

        A rank that `gives_up` has a reason of its own to stop.
        """
        flags = (self._stop_requested or gives_up, time.monotonic() >= self._next_look)
        stops, looks = self._agree(flags)
        if not looks:
            return stops, False
        notice = ray.train.get_preemption_info()  # waits for all ranks
        self._next_look = time.monotonic() + (LOOK_SECONDS if notice is None else AGAIN_SECONDS)
        if notice is not None:
            ranks = ", ".join(map(str, notice.preempted_ranks))
            self._say(f"the node of rank {ranks} is about to be preempted: saving a checkpoint")
        return stops, notice is not None

    def _agree(self, flags: tuple[bool, bool]) -> tuple[bool, bool]:
        """Which of the `flags` any rank has raised; of several ranks with GPUs, some steps ago."""
        if self._ranks.world_size == 1:
            return flags
        raised = self._ranks.max(torch.tensor(flags, dtype=torch.float32).to(self._device, non_blocking=True))
        self._raised.append(HostCopy(raised))
        if len(self._raised) <= lag(self._device):
            return False, False
        stops, looks = self._raised.popleft().numpy().astype(bool)
        return bool(stops), bool(looks)

    def _watch(self) -> None:
        """Poll the driver, so that no step has to wait for its answer."""
        heeds = False
        while not (self._stop_requested and heeds):
            time.sleep(POLL_SECONDS)
            heeds = self.heeds
            try:
                self._stop_requested = ray.get(self._board.stop_requested.remote(heeds))
            except ray.exceptions.RayError:  # the driver and its board are gone: Ray ends this process too
                return
