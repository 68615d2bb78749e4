"""timm, and modules without values, without PyTorch's compiler, until that is used: its import takes longer.

Importing timm imports `torch._dynamo` in two places, as read in timm 1.0.31 and torchvision 0.29: a test
whether the device can compile (`torchvision.ops.roi_align`), and a method that is not to be compiled
(`timm.models.naflexvit`). On the meta device many operations import it for the latter reason, as read in
PyTorch 2.13 (`torch._compile`). Meanwhile a module of the same name has these two. A version that needs more
of it imports it as ever.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _StandIn(ModuleType):
    """In place of the compiler or a module of it."""


def import_timm() -> None:
    """Import timm, for all who import it later."""
    with _without_compiler(), suppress(ImportError, AttributeError):
        importlib.import_module("timm")


@contextmanager
def shapes_only() -> Iterator[None]:
    """Inside the block modules are made on the meta device: without values, in no time and memory."""
    with torch.device("meta"), _Unfilled(), _without_compiler():
        yield


class _Unfilled(TorchFunctionMode):
    """Context in which `torch.nn.init` does nothing: without values it only imports SymPy."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name.endswith("_") and not name.startswith("_") and hasattr(nn.init, name):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


@contextmanager
def _without_compiler() -> Iterator[None]:
    if "torch._dynamo" in sys.modules:
        yield
        return
    compiler, utils = _StandIn("torch._dynamo"), _StandIn("torch._dynamo.utils")
    compiler.disable, utils.is_compile_supported = _disable, _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {module.__name__: module for module in (compiler, utils)}
    try:
        yield
    finally:
        for module in (compiler, utils):
            del sys.modules[module.__name__]


def _disable(function: Callable[..., Any], *options: Any, **named: Any) -> Callable[..., Any]:
    """As `torch.compiler.disable` with the same `options`, once there is a compiler to disable."""
    disabled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if disabled is None:
            compiler: Any = sys.modules.get("torch._dynamo")
            if compiler is None or isinstance(compiler, _StandIn):
                return function(*args, **kwargs)
            disabled = compiler.disable(function, *options, **named)
        return disabled(*args, **kwargs)

    return call


def _is_compile_supported(device: str) -> Any:
    """Whether PyTorch can compile for a `device`."""
    return importlib.import_module("torch._dynamo.utils").is_compile_supported(device)
