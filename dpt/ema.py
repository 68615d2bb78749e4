"""Exponential moving average of a model's parameters, often a better model than the last step's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """A moving average beside a model; sharded parameters (DTensor) are averaged shard by shard.

    Args:
        model: its parameters are averaged, on their own devices; buffers are not.
        decay: weight of the previous average in an update, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._average = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, skip: torch.Tensor) -> None:
        """average ← decay · average + (1 − decay) · parameters; called after every optimiser step.

        Nothing changes where `skip`, a float scalar, is 1.
        """
        average = list(self._average.values())
        change = torch._foreach_sub([parameter.detach() for parameter in self._parameters.values()], average)
        torch._foreach_mul_(change, (1 - self._decay) * (1 - skip.to(average[0].dtype)))
        torch._foreach_add_(average, change)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Context in which the model has the averaged parameters."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def restart(self) -> None:
        """Reset the average to the current parameters, e.g. to an earlier average loaded into the model."""
        for name, parameter in self._parameters.items():
            self._average[name].copy_(parameter.detach())

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(kept)
