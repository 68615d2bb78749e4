"""Values of a device that the host reads later, without waiting for what was launched after them.

Reading a number of a GPU's tensor at once (`Tensor.item`) makes the host wait for all that runs before it,
and the GPU then for the host's next launch.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class HostCopy:
    """A copy of a small tensor in the host's memory, on its way.

    Args:
        values: of any shape and dtype, on any device; not changed in place afterwards if on the CPU.
    """

    def __init__(self, values: Tensor) -> None:
        self._event = None
        self._copy = values
        if values.device.type == "cuda":
            self._copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._copy.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def numpy(self) -> NDArray[Any]:
        """The values, once they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy.numpy()


def lag(device: torch.device) -> int:
    """How many steps later the host reads: a `device` that is a GPU gets that much work ahead."""
    return 2 if device.type == "cuda" else 0
