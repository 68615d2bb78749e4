"""One step of training: a rank's share of a batch → gradients of the whole batch → new parameters.

The gradient is that of the mean loss over all images of the global batch (weighted, where the task says so),
however they are spread over ranks and micro-batches. A step whose loss or gradient is no use changes
nothing: not the parameters, the optimiser, the moving average, nor the running statistics of batch
normalisation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

import dpt
from dpt.ema import MovingAverage
from dpt.multi_objective import average_weights, combine_gradients, min_norm_weights
from dpt.predict.transforms import normalise
from pipelines.config import TrainConfig
from pipelines.loading.batches import Batch
from pipelines.tasks.registry import task_of
from pipelines.training.parallel import is_synchronised


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes:
        loss: float32 scalar; its mean over all ranks is the mean loss of the batch's images.
        skipped: whether the step was left out.
        offending: names of this rank's samples whose loss was the reason; the gradient alone may be one too.
    """

    loss: Tensor
    skipped: bool
    offending: list[str]


class TrainingStep:
    """Runs steps on one rank.

    Args:
        model: the bare model, on its device.
        parallel: the model as the ranks share it: wrapped by DDP, sharded by FSDP2, or itself.
        average: moving average of the model's parameters, if one is kept.
        datasets: number of datasets in the mixture.
    """

    def __init__(
        self,
        model: dpt.DPT,
        parallel: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        config: TrainConfig,
        datasets: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._model, self._parallel, self._optimizer, self._average = model, parallel, optimizer, average
        self._config, self._datasets = config, datasets
        self._rank, self._world_size = rank, world_size
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._task = task_of(config)
        self._in_step = world_size > 1 and (
            isinstance(parallel, FSDPModule) or any(map(is_synchronised, model.modules()))
        )
        """Whether no rank can run the model without all others."""

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Train on this rank's share of a batch, as step number `step` of the run (from 1)."""
        torch.manual_seed(step_seed(self._config.seed, step, self._rank))
        statistics = [buffer.clone() for buffer in self._model.buffers()]
        self._optimizer.zero_grad(set_to_none=True)
        multi = self._config.optimizer.objective == "multi_objective" and self._datasets > 1
        weights = self._weights(batch)
        losses = self._multi_objective(batch) if multi else self._mean(batch, weights)
        norm = self._clip()
        if not self._usable(losses, norm):
            for buffer, before in zip(self._model.buffers(), statistics, strict=True):
                buffer.copy_(before)
            self._optimizer.zero_grad(set_to_none=True)
            return StepResult(losses.new_zeros(()), True, self._offending(losses, batch))
        self._optimizer.step()
        if self._average is not None:
            self._average.update()
        return StepResult((weights * losses).sum() * self._share, False, [])

    @property
    def _share(self) -> float:
        """Turns a sum over this rank's images into a number whose mean over ranks is the batch's mean."""
        return self._world_size / self._config.batch_size

    def _weights(self, batch: Batch) -> Tensor:
        """How much each of this rank's images counts, (n,) float32; over the whole batch the mean is one."""
        weights = self._task.weights(batch.target)
        if weights is None:
            return torch.ones(len(batch.images), device=self._device)
        weights = weights.to(self._device)
        total = weights.sum()
        if self._world_size > 1:
            torch.distributed.all_reduce(total)
        # Where nothing counts, nothing is learned.
        return (weights * self._config.batch_size / total.clamp(min=torch.finfo(total.dtype).tiny)).float()

    def _mean(self, batch: Batch, weights: Tensor) -> Tensor:
        """Gradients of the mean over images, in micro-batches; returns the images' losses, detached."""
        largest_share = -(-self._config.batch_size // self._world_size)
        pieces = min(self._config.optimizer.accumulate, largest_share)
        parts = torch.arange(len(batch.images)).tensor_split(pieces)
        parts = tuple(part for part in parts if len(part) or self._in_step)
        losses = []
        for number, part in enumerate(parts, start=1):
            with self._synchronising(number == len(parts)):
                found = self._losses(self._parallel, batch, part)
                ((weights[part.to(self._device)] * found).sum() * self._share).backward()
            losses.append(found.detach())
        return torch.cat(losses)

    def _multi_objective(self, batch: Batch) -> Tensor:
        """Gradients of the shortest common direction of all datasets (section 4.1); returns as `_mean`."""
        losses = torch.zeros(len(batch.images), device=self._device)

        def objective(chosen: Tensor) -> Callable[[], Tensor]:
            def run() -> Tensor:
                found = self._losses(self._model, batch, chosen)
                losses[chosen.to(self._device)] = found.detach()
                return found.sum()

            return run

        members = [torch.nonzero(batch.dataset == index).flatten() for index in range(self._datasets)]
        images = [len(chosen) for chosen in members]
        runs = self._on_any_rank(images) if self._in_step else images
        objectives = [objective(chosen) if run else None for chosen, run in zip(members, runs, strict=True)]
        combine_gradients(objectives, images, self._model.parameters(), _min_norm_weights_if_finite)
        return losses

    def _on_any_rank(self, images: list[int]) -> list[int]:
        """Images of each dataset in the whole batch."""
        total = torch.tensor(images, device=self._device)
        torch.distributed.all_reduce(total)
        found: list[int] = total.tolist()
        return found

    def _losses(self, model: nn.Module, batch: Batch, chosen: Tensor) -> Tensor:
        """Loss of each chosen image, (n,) float32."""
        images, target = batch.images[chosen], batch.target[chosen]
        pixels = normalise(images.to(self._device, non_blocking=True), self._model.mean, self._model.std)
        pixels = pixels.to(self._dtype)
        if self._config.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        target = target.to(self._device, non_blocking=True)
        mixed = self._config.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16) if mixed else nullcontext():
            output = model(pixels)
        return self._task.losses(output, target)

    def _synchronising(self, last: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients once a step, in its last micro-batch."""
        if isinstance(self._parallel, FSDPModule):
            self._parallel.set_requires_gradient_sync(last)
        elif isinstance(self._parallel, DistributedDataParallel) and not last:
            return self._parallel.no_sync()
        return nullcontext()

    def _clip(self) -> Tensor:
        """Limit the gradient's norm, if asked to; returns what it was."""
        limit = self._config.optimizer.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), limit)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def _usable(self, losses: Tensor, norm: Tensor) -> bool:
        """Whether all ranks have finite losses below the limit, and the gradient is finite."""
        bad = ~torch.isfinite(losses).all() | (losses > self._config.max_loss).any() | ~torch.isfinite(norm)
        verdict = bad.to(torch.float32).reshape(1)
        if self._world_size > 1:
            torch.distributed.all_reduce(verdict, torch.distributed.ReduceOp.MAX)
        return not verdict.item()

    def _offending(self, losses: Tensor, batch: Batch) -> list[str]:
        bad = (~torch.isfinite(losses) | (losses > self._config.max_loss)).tolist()
        return [name for name, is_bad in zip(batch.sample_ids, bad, strict=True) if is_bad]


def _min_norm_weights_if_finite(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradients that are not finite have no shortest combination; any weights show that the step is bad."""
    return min_norm_weights(gram) if np.isfinite(gram).all() else average_weights(gram)


def step_seed(seed: int, step: int, rank: int) -> int:
    """What seeds the random numbers of a step (dropout and the like): nothing has to be saved to go on."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
