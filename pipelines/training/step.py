"""One step of training: a rank's share of a batch → gradients of the whole batch → new parameters.

The gradient is that of the mean loss over all images of the global batch (weighted, where the task has
weights), however they are spread over ranks and micro-batches. A step whose loss or gradient is not finite,
or whose loss is too large, is skipped: parameters, optimiser, moving average and the running statistics of
batch normalisation stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import dpt
from dpt.ema import MovingAverage
from pipelines.config import TrainConfig
from pipelines.loading.batches import Batch
from pipelines.loading.half_size import at_half_size
from pipelines.tasks.registry import task_of
from pipelines.training.gradients import Gradients, share_factor
from pipelines.training.host_copy import HostCopy
from pipelines.training.ranks import Ranks


@dataclass(frozen=True, slots=True)
class StepResult:
    """Outcome of a step, which may still be running on a GPU.

    Attributes:
        loss: float32 scalar; its mean over all ranks is the mean loss of the batch's images. 0 if skipped.
        flags: (1 + n,), whether the step was skipped, and which of this rank's samples were the reason.
        sample_ids: their n names.
    """

    loss: Tensor
    flags: HostCopy
    sample_ids: list[str]

    @property
    def skipped(self) -> bool:
        """Whether the step was skipped; waits for it."""
        return bool(self.flags.numpy()[0])

    @property
    def offending(self) -> list[str]:
        """Names of this rank's samples whose loss was the reason; empty if it was the gradient alone."""
        return [name for name, bad in zip(self.sample_ids, self.flags.numpy()[1:], strict=True) if bad]


class TrainingStep:
    """Runs steps on one rank.

    Args:
        model: the bare model, on its device.
        parallel: the model as the ranks share it: wrapped by DDP, sharded by FSDP2, or itself.
        optimizer: of the model's parameters.
        average: moving average of the model's parameters, if one is kept.
        config: of the run.
        datasets: names of the datasets in the mixture, in the order of `Batch.dataset`.
        ranks: this rank among all.
    """

    def __init__(
        self,
        model: dpt.DPT,
        parallel: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        config: TrainConfig,
        datasets: Sequence[str],
        ranks: Ranks,
    ) -> None:
        self._optimizer, self._average = optimizer, average
        self._config, self._ranks = config, ranks
        self._device = next(model.parameters()).device
        self._task = task_of(config, datasets)
        self._gradients = Gradients(model, parallel, self._task, config, len(datasets), ranks)
        # Walking through the modules of a small network takes as long as its optimiser.
        self._parameters, self._buffers = list(model.parameters()), list(model.buffers())

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Train on this rank's share `batch` of a global batch, as step number `step` of the run (from 1)."""
        # Chosen from on the device, where they are already if `pipelines.loading.on_device` has copied them.
        images, target = (side.to(self._device, non_blocking=True) for side in (batch.images, batch.target))
        batch = replace(batch, images=images, target=target)
        if step <= self._config.half_size_share * self._config.steps:
            batch = at_half_size(batch)
        statistics = [buffer.clone() for buffer in self._buffers]
        self._optimizer.zero_grad(set_to_none=True)
        weights = self._weights(batch)
        losses = self._gradients(batch, weights, step)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm: Any = nn.utils.get_total_norm(gradients)
        if self._config.optimizer.clip_norm:
            nn.utils.clip_grads_with_norm_(self._parameters, self._config.optimizer.clip_norm, norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        offends = ~torch.isfinite(losses) | (losses > self._config.max_loss)
        bad = self._ranks.max((offends.any() | ~torch.isfinite(norm)).to(torch.float32))
        # Decided on the device: the host launches the next step without knowing how this one ends.
        for buffer, before in zip(self._buffers, statistics, strict=True):
            buffer.copy_(torch.where(bad > 0, before, buffer))
        self._optimizer.found_inf = bad  # type: ignore[attr-defined]
        self._optimizer.step()
        if self._average is not None:
            self._average.update(skip=bad)
        loss = torch.where(bad > 0, 0.0, (weights * losses).sum() * share_factor(self._config, self._ranks))
        return StepResult(loss, HostCopy(torch.cat([bad[None] > 0, offends])), batch.sample_ids)

    def _weights(self, batch: Batch) -> Tensor:
        """Weight of each of this rank's images, (n,) float32; their mean over the global batch is 1."""
        weights = self._task.weights(batch.target)
        if weights is None:
            return torch.ones(len(batch.images), device=self._device)
        total = self._ranks.sum(weights.sum())
        # A batch whose weights are all zero has a loss of zero instead of 0/0.
        return (weights * self._config.batch_size / total.clamp(min=torch.finfo(total.dtype).tiny)).float()
