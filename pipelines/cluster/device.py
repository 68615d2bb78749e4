"""The device of this machine, for jobs that need no Ray."""

from __future__ import annotations

import torch

from pipelines.config import ConfigError


def resolve_device(device: str) -> torch.device:
    """The device to use on this machine for a `device` setting: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: for `cuda` without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, but this machine has no GPU that PyTorch can use")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
