"""Ray Train's entry point in each training process.

Ray Train's controller, a process of its own, unpickles all of this and its arguments, though only ranks call
it. So this module imports nothing that the controller would not, and the setup travels as bytes: the
controller would otherwise import PyTorch and MLflow, for seconds, before it starts the ranks.
"""

from __future__ import annotations

import gc
import pickle
from typing import Any

from ray.train.backend import Backend, BackendConfig


class _SharingDevices(Backend):
    share_cuda_visible_devices = True  # so that NCCL may copy between the GPUs of a node


class JoiningByThemselves(BackendConfig):
    """In place of `TorchConfig`, by which the controller makes the process group, and imports PyTorch."""

    @property
    def backend_cls(self) -> type[Backend]:
        """See `ray.train.backend.BackendConfig`."""
        return _SharingDevices


def train_loop(arguments: dict[str, Any]) -> None:
    """Run one rank; `arguments` has `setup`, a pickled `loop.Setup`, and `board`, an actor handle."""
    gc.disable()  # nothing that an import makes is garbage: to look for it takes a sixth of the time
    from pipelines.training.loop import run_rank
    from pipelines.training.ranks import process_group

    gc.enable()
    setup = pickle.loads(arguments["setup"])
    with process_group(setup.use_gpu, 60 * setup.config.hang_minutes):
        run_rank(setup, arguments["board"])
