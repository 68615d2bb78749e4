"""timm without PyTorch's compiler, whose import takes longer than all of timm, until that is used.

Importing timm imports `torch._dynamo` in two places, as read in timm 1.0.31 and torchvision 0.29: a test
whether the device can compile (`torchvision.ops.roi_align`), and a method that is not to be compiled
(`timm.models.naflexvit`). Meanwhile a module of the same name has these two, which import the compiler when
they are called. A version that needs more of it imports it as ever.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any


def import_timm() -> None:
    """Import timm, for all who import it later."""
    if "torch._dynamo" in sys.modules:
        return
    compiler, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    compiler.disable, utils.is_compile_supported = _disable, _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {module.__name__: module for module in (compiler, utils)}
    try:
        with suppress(ImportError, AttributeError):
            importlib.import_module("timm")
    finally:
        for module in (compiler, utils):
            del sys.modules[module.__name__]


def _disable(function: Callable[..., Any], *options: Any, **named: Any) -> Callable[..., Any]:
    """As `torch.compiler.disable` with the same `options`, from the first call of `function` on."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        compiler = importlib.import_module("torch._dynamo")
        return compiler.disable(function, *options, **named)(*args, **kwargs)

    return call


def _is_compile_supported(device: str) -> Any:
    """Whether PyTorch can compile for a `device`."""
    return importlib.import_module("torch._dynamo.utils").is_compile_supported(device)
