"""What would make the host wait for a GPU, found on a CPU, where neither takes part in a step's result."""

import traceback
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Records what would make the host wait for a GPU: numbers read, and sizes that depend on values."""

    READING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__.partition(".")[0]
        masks = [
            i for i in (args[1] if name in ("index", "index_put", "index_put_") else []) if i is not None
        ]
        if name in self.READING or any(index.dtype == torch.bool for index in masks):
            self.found.append("".join(traceback.format_stack(limit=4)[:-1]))
        return function(*args, **kwargs or {})


class BlockingCopies(TorchFunctionMode):
    """Records calls that would copy from the host to a GPU and wait for all that runs there.

    In a CUDA graph they are not permitted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        places = kwargs.get("device"), *(args[1:] if function is torch.Tensor.to else ())
        copies = function in (torch.Tensor.to, torch.tensor, torch.as_tensor)
        if copies and any(isinstance(place, torch.device) for place in places):
            stack = traceback.extract_stack(limit=4)[:-1]
            # PyTorch's own are of tensors that are on the device.
            if not kwargs.get("non_blocking") and "/site-packages/torch/" not in stack[-1].filename:
                self.found.append("".join(traceback.format_list(stack)))
        return function(*args, **kwargs)
