"""One step of training: a rank's share of a batch → gradients of the whole batch → new parameters.

The gradient is that of the mean loss over all images of the global batch (weighted, where the task has
weights), however they are spread over ranks and micro-batches. A step whose loss or gradient is not finite,
or whose loss is too large, is skipped: parameters, optimiser, moving average and the running statistics of
batch normalisation stay as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

import dpt
from dpt.dataset_gradients import DatasetGradients, NotSeparable, couples_images
from dpt.ema import MovingAverage
from dpt.multi_objective import combine_gradients, gradients_one_by_one
from dpt.predict.transforms import normalise
from pipelines.config import TrainConfig
from pipelines.loading.batches import Batch
from pipelines.tasks.registry import task_of
from pipelines.training.host_copy import HostCopy
from pipelines.training.parallel import is_synchronised
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
        datasets: number of datasets in the mixture.
        ranks: this rank among all.
    """

    def __init__(
        self,
        model: dpt.DPT,
        parallel: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        config: TrainConfig,
        datasets: int,
        ranks: Ranks,
    ) -> None:
        self._model, self._parallel, self._optimizer, self._average = model, parallel, optimizer, average
        self._config, self._datasets, self._ranks = config, datasets, ranks
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._task = task_of(config)
        self._lockstep = ranks.world_size > 1 and (
            isinstance(parallel, FSDPModule) or any(map(is_synchronised, model.modules()))
        )
        """Whether all ranks must run the model equally often, because it communicates in its forward pass."""
        self._apart = couples_images(model) or config.activation_checkpointing
        """Whether several objectives take a pass each: in one, layers computed again would not be watched."""
        self._seed = 0

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Train on this rank's share `batch` of a global batch, as step number `step` of the run (from 1)."""
        self._seed = step_seed(self._config.seed, step, self._ranks.rank)
        torch.manual_seed(self._seed)
        # Chosen from on the device: on the CPU every choice would be a copy that is not pinned.
        images, target = (side.to(self._device, non_blocking=True) for side in (batch.images, batch.target))
        batch = replace(batch, images=images, target=target)
        statistics = [buffer.clone() for buffer in self._model.buffers()]
        self._optimizer.zero_grad(set_to_none=True)
        multi = self._config.optimizer.objective == "multi_objective" and self._datasets > 1
        weights = self._weights(batch)
        losses = self._multi_objective(batch) if multi else self._mean(batch, weights)
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        norm: Any = nn.utils.get_total_norm(gradients)
        if self._config.optimizer.clip_norm:
            nn.utils.clip_grads_with_norm_(self._model.parameters(), self._config.optimizer.clip_norm, norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        offends = ~torch.isfinite(losses) | (losses > self._config.max_loss)
        bad = self._ranks.max((offends.any() | ~torch.isfinite(norm)).to(torch.float32))
        # Decided on the device: the host launches the next step without knowing how this one ends.
        for buffer, before in zip(self._model.buffers(), statistics, strict=True):
            buffer.copy_(torch.where(bad > 0, before, buffer))
        self._optimizer.found_inf = bad  # type: ignore[attr-defined]
        self._optimizer.step()
        if self._average is not None:
            self._average.update(skip=bad)
        loss = torch.where(bad > 0, 0.0, (weights * losses).sum() * self._share)
        return StepResult(loss, HostCopy(torch.cat([bad[None] > 0, offends])), batch.sample_ids)

    @property
    def _share(self) -> float:
        """Factor from the sum over this rank's images to a number whose mean over ranks is the batch's mean.

        DDP and FSDP2 average gradients over ranks, which may have unequal shares. Of a batch of 3 images on 2
        ranks, losses a, b | c: (2/3 · (a + b) + 2/3 · c) / 2 = (a + b + c) / 3.
        """
        return self._ranks.world_size / self._config.batch_size

    def _weights(self, batch: Batch) -> Tensor:
        """Weight of each of this rank's images, (n,) float32; their mean over the global batch is 1."""
        weights = self._task.weights(batch.target)
        if weights is None:
            return torch.ones(len(batch.images), device=self._device)
        weights = weights.to(self._device)
        total = self._ranks.sum(weights.sum())
        # A batch whose weights are all zero has a loss of zero instead of 0/0.
        return (weights * self._config.batch_size / total.clamp(min=torch.finfo(total.dtype).tiny)).float()

    def _mean(self, batch: Batch, weights: Tensor) -> Tensor:
        """Gradients of the weighted mean, in micro-batches; returns the images' losses, (n,) detached."""
        parts = self._micro_batches(torch.arange(len(batch.images)))
        losses = []
        for number, part in enumerate(parts, start=1):
            with self._synchronising(number == len(parts)):
                found = self._losses(self._parallel, batch, part)
                ((weights[part.to(self._device)] * found).sum() * self._share).backward()
            losses.append(found.detach())
        return torch.cat(losses)

    def _multi_objective(self, batch: Batch) -> Tensor:
        """Gradients of the datasets' min-norm combination (section 4.1); returns losses as `_mean` does."""
        counts = np.bincount(batch.dataset.numpy(), minlength=self._datasets)
        # Alone, a rank need not keep a gradient of a dataset without images.
        datasets = [index for index in range(self._datasets) if counts[index] or self._ranks.world_size > 1]
        losses = torch.zeros(len(batch.images), device=self._device)
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        gradients: dict[nn.Parameter, Tensor] = {}
        run = self._one_by_one if self._apart else self._in_one_pass
        for part in self._micro_batches(torch.argsort(batch.dataset, stable=True)):
            of_part = batch.dataset.numpy()[part.numpy()]
            members = [torch.from_numpy(part.numpy()[of_part == index]) for index in datasets]
            for parameter, rows in run(batch, members, parameters, losses).items():
                gradients[parameter] = gradients[parameter] + rows if parameter in gradients else rows
        combine_gradients(gradients, [int(counts[index]) for index in datasets], parameters)
        return losses

    def _micro_batches(self, images: Tensor) -> list[Tensor]:
        """This rank's `images`, (n,) indices, in parts: as many on all ranks if in lockstep."""
        largest_share = -(-self._config.batch_size // self._ranks.world_size)
        parts = images.tensor_split(min(self._config.optimizer.accumulate, largest_share))
        return [part for part in parts if len(part) or self._lockstep]

    def _in_one_pass(
        self, batch: Batch, members: list[Tensor], parameters: list[nn.Parameter], losses: Tensor
    ) -> dict[nn.Parameter, Tensor]:
        """Gradients of each dataset's `members`, indices of images, whose `losses` are filled in."""
        chosen = torch.cat(members)
        apart = DatasetGradients([len(images) for images in members], self._device)

        def forward(pixels: Tensor) -> Any:
            with apart:
                return self._model.forward(pixels.requires_grad_())

        try:
            found = self._losses(forward, batch, chosen)
        except NotSeparable:  # by the first batch, on all ranks alike: it depends on the model alone
            self._apart = True
            torch.manual_seed(self._seed)
            return self._one_by_one(batch, members, parameters, losses)
        losses[chosen.to(self._device)] = found.detach()
        return apart.of_sums(found)

    def _one_by_one(
        self, batch: Batch, members: list[Tensor], parameters: list[nn.Parameter], losses: Tensor
    ) -> dict[nn.Parameter, Tensor]:
        """As `_in_one_pass`, each dataset by itself."""

        def objective(chosen: Tensor) -> Callable[[], Tensor]:
            def run() -> Tensor:
                found = self._losses(self._model, batch, chosen)
                losses[chosen.to(self._device)] = found.detach()
                return found.sum()

            return run

        # In lockstep a dataset that any rank has images of is run by all, if need be on an empty batch.
        runs = [len(chosen) for chosen in members]
        if self._lockstep:
            runs = self._ranks.sum(torch.tensor(runs, device=self._device)).tolist()
        objectives = [objective(chosen) if run else None for chosen, run in zip(members, runs, strict=True)]
        return gradients_one_by_one(objectives, parameters)

    def _losses(self, model: Callable[[Tensor], Any], batch: Batch, chosen: Tensor) -> Tensor:
        """Loss of each chosen image, (n,) float32."""
        chosen = chosen.to(self._device, non_blocking=True)
        pixels = normalise(batch.images[chosen], self._model.mean, self._model.std).to(self._dtype)
        if self._config.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        mixed = self._config.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16) if mixed else nullcontext():
            output = model(pixels)
        return self._task.losses(output, batch.target[chosen])

    def _synchronising(self, last: bool) -> AbstractContextManager[None]:
        """Let ranks exchange gradients once a step, in its last micro-batch."""
        if isinstance(self._parallel, FSDPModule):
            self._parallel.set_requires_gradient_sync(last)
        elif isinstance(self._parallel, DistributedDataParallel) and not last:
            return self._parallel.no_sync()
        return nullcontext()


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed in [0, 2^63) of a step's random numbers (dropout): a hash of the run's `seed`, `step` and `rank`.

    As a pure function of the three it leaves no generator state to be saved in checkpoints.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
