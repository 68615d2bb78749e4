"""The device under test: what is left of the time, how long a call takes, the model that is on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch

import dpt
from pipelines.training.report import matrix_rate, training_operations, wait_for


@dataclass
class Bench:
    """What all parts share.

    Attributes:
        device: that is measured.
        tiny: a small model, small crops and few repeats, to try the script on a CPU.
        end: when everything must be over, in seconds of `time.monotonic`.
        notes: lines to print below the table of the part that runs.
    """

    device: torch.device
    tiny: bool
    end: float
    notes: list[str] = field(default_factory=list)
    _name: str = ""
    _model: dpt.DPT | None = None
    _operations: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    @property
    def crop(self) -> int:
        """Height and width of all images in pixels."""
        return 64 if self.tiny else 384

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Of training: the paper's model in bfloat16 on GPUs."""
        return "bfloat16" if self.device.type == "cuda" else "float32"

    def chosen(self, *names: str) -> tuple[str, ...]:
        """The models `names`, or the tiny one instead of all."""
        return ("dpt_tiny",) if self.tiny else names

    @cached_property
    def peak(self) -> float:
        """FLOP/s of a large matrix product in bfloat16, what shares are of."""
        return matrix_rate(self.device, torch.bfloat16)

    def seconds(self, call: Callable[[], object]) -> float:
        """Mean seconds of a `call`, repeated for about half a second without waiting in between."""
        once = min(self._row(call, 1) for _ in range(2))  # the first one allocates memory, chooses kernels
        return self._row(call, 2 if self.tiny else max(2, min(50, round(0.5 / once))))

    def _row(self, call: Callable[[], object], count: int) -> float:
        wait_for(self.device)
        start = time.perf_counter()
        for _ in range(count):
            call()
        wait_for(self.device)
        return (time.perf_counter() - start) / count

    def model(self, name: str) -> dpt.DPT:
        """The model `name` with random weights on the device, where one at a time is kept."""
        if self._name != name:
            self._model, self._name = None, name
            with torch.device(self.device):
                self._model = dpt.create_model(name)
        assert self._model is not None
        self._model.zero_grad(set_to_none=True)
        return self._model

    def operations(self, name: str) -> float:
        """FLOPs of a training step of the model `name` on one image; a third is the forward pass's."""
        if name not in self._operations:
            self._operations[name] = training_operations(self.model(name), (self.crop, self.crop))
        return self._operations[name]


def reason(error: Exception) -> str:
    """Class and first line of an `error`."""
    return f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")[:160]
