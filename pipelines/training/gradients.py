"""Gradients of a batch, of which every rank has a share: of the mean loss, or combined from the datasets'.

With several objectives (section 4.1) a rank takes all datasets' gradients apart in one forward and one
backward pass and keeps them until their weights are known: no arithmetic twice, but memory for one gradient
per dataset, which `fsdp` cannot hold. Two passes can: the first only sketches the gradients (`dpt.sketch`),
from which the weights follow; the second is an ordinary one of the losses times these weights, in which ranks
exchange gradients while it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import dpt
from dpt.dataset_gradients import DatasetGradients, NotSeparable, couples_images
from dpt.feature_alignment import FeatureAlignment
from dpt.multi_objective import (
    combination,
    combine_gradients,
    gradients_one_by_one,
    scalar_products,
    sum_over_ranks,
)
from dpt.predict.transforms import normalise
from dpt.sketch import Sketch
from pipelines.config import ConfigError, TrainConfig
from pipelines.loading.batches import Batch
from pipelines.tasks.base import Task
from pipelines.training.parallel import is_sharded, is_synchronised
from pipelines.training.ranks import Ranks

_ALL_RANKS = -1
"""In place of a rank: of random numbers that are the same on all."""


class Gradients:
    """Sets the gradients of a model's parameters.

    Args:
        model: the bare model, on its device.
        parallel: the model as the ranks share it: wrapped by DDP, sharded by FSDP2, or itself.
        task: has the loss.
        config: of the run.
        datasets: number of datasets in the mixture.
        ranks: this rank among all.

    Raises:
        ConfigError: if features are to be aligned, and the weights of the encoder cannot be fetched.
    """

    def __init__(
        self,
        model: dpt.DPT,
        parallel: nn.Module,
        task: Task,
        config: TrainConfig,
        datasets: int,
        ranks: Ranks,
    ) -> None:
        self._model, self._parallel, self._task = model, parallel, task
        self._config, self._datasets, self._ranks = config, datasets, ranks
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._sharded = is_sharded(parallel)
        self._lockstep = ranks.world_size > 1 and (
            self._sharded or any(map(is_synchronised, model.modules()))
        )
        """Whether all ranks must run the model equally often, because it communicates in its forward pass."""
        self._apart = couples_images(model)
        """Whether several objectives take a pass each."""
        self._step = 0
        alignment = config.feature_alignment
        self._aligned = [i for i, name in enumerate(task.names) if name in alignment.datasets]
        """Datasets whose features are aligned."""
        if self._aligned:
            model.returns_features = True
            try:
                frozen = FeatureAlignment(alignment.encoder, model.config, alignment.margin)
            except (OSError, ValueError) as error:
                raise ConfigError(f"feature_alignment.encoder: cannot fetch its weights: {error}") from error
            self._alignment = frozen.to(self._device, self._dtype)

    def __call__(self, batch: Batch, weights: Tensor, step: int) -> Tensor:
        """Set the gradients of step number `step`, and return the images' losses, (n,) float32 detached.

        `batch` is this rank's share, with images and target on the device; `weights`, (n,) float32, are those
        of the images in the mean; several objectives are combined without them.
        """
        self._step = step
        self._start_pass()
        if self._config.optimizer.objective == "average" or self._datasets == 1:
            return self._mean(batch, weights, torch.arange(len(batch.images)))
        if not self._apart and (self._sharded or self._config.optimizer.two_passes):
            try:
                return self._in_two_passes(batch)
            except NotSeparable:  # by the first batch, on all ranks alike: it depends on the model alone
                self._apart = True
                self._start_pass()
        return self._one_by_one_sharded(batch) if self._sharded else self._in_one_pass(batch)

    def _start_pass(self) -> None:
        """Every pass of a step drops the same units, if it drops any."""
        torch.manual_seed(step_seed(self._config.seed, self._step, self._ranks.rank))

    # ---- one objective

    def _mean(self, batch: Batch, weights: Tensor, images: Tensor) -> Tensor:
        """Gradients of the weighted mean over `images`, indices, in micro-batches; returns their losses."""
        parts = self._micro_batches(images)
        losses = []
        for number, part in enumerate(parts, start=1):
            with self._synchronising(number == len(parts)):
                found = self._losses(self._parallel, batch, part)
                share = share_factor(self._config, self._ranks)
                ((weights[part.to(self._device, non_blocking=True)] * found).sum() * share).backward()
            losses.append(found.detach())
        return torch.cat(losses)

    def _micro_batches(self, images: Tensor) -> list[Tensor]:
        """This rank's `images`, (n,) indices, in parts: as many on all ranks if in lockstep."""
        largest_share = -(-self._config.batch_size // self._ranks.world_size)
        parts = images.tensor_split(min(self._config.optimizer.accumulate, largest_share))
        return [part for part in parts if len(part) or self._lockstep]

    def _losses(self, model: Callable[[Tensor], Any], batch: Batch, chosen: Tensor) -> Tensor:
        """Loss of each chosen image, (n,) float32."""
        part = batch.at(chosen)
        pixels = normalise(part.images, self._model.mean, self._model.std).to(self._dtype)
        if self._config.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            output = model(pixels)
        if not self._aligned:
            return self._task.losses(output, part)
        return self._with_alignment(self._task.losses(output[0], part), output[1], part)

    def _with_alignment(self, losses: Tensor, features: Tensor, batch: Batch) -> Tensor:
        """The `losses`, (n,), of a `batch`, plus that of its `features` for images of the chosen datasets."""
        found = np.flatnonzero(np.isin(batch.dataset.numpy(), self._aligned))
        if not len(found):
            return losses
        images = torch.from_numpy(found).to(self._device, non_blocking=True)
        with self._autocast():
            alignment = self._alignment(features[images], batch.images[images])
        weight = self._config.feature_alignment.weight
        return losses.index_add(0, images, weight * alignment.to(losses.dtype))

    def _autocast(self) -> AbstractContextManager[Any]:
        mixed = self._config.precision == "bfloat16"
        return torch.autocast(self._device.type, torch.bfloat16) if mixed else nullcontext()

    def _synchronising(self, last: bool) -> AbstractContextManager[None]:
        """Let ranks exchange gradients once a step, in its last micro-batch."""
        if self._sharded:
            sharded: Any = self._parallel
            sharded.set_requires_gradient_sync(last)
        elif isinstance(self._parallel, DistributedDataParallel) and not last:
            return self._parallel.no_sync()
        return nullcontext()

    # ---- several objectives, all gradients kept

    def _in_one_pass(self, batch: Batch) -> Tensor:
        """Gradients of the datasets' combination; returns the images' losses."""
        counts = self._counts(batch.dataset)
        # Alone, a rank need not keep a gradient of a dataset without images.
        datasets = [index for index in range(self._datasets) if counts[index] or self._ranks.world_size > 1]
        losses = torch.zeros(len(batch.images), device=self._device)
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        gradients: dict[nn.Parameter, Tensor] = {}
        for part in self._micro_batches(torch.argsort(batch.dataset, stable=True)):
            groups = part.split(self._counts(batch.dataset[part]))
            members = [groups[index] for index in datasets]
            for parameter, rows in self._taken_apart(batch, members, parameters, losses).items():
                gradients[parameter] = gradients[parameter] + rows if parameter in gradients else rows
        estimated = self._config.optimizer.gram == "sketch" and self._ranks.world_size > 1
        sketch = self._sketch(len(datasets)) if estimated else None
        combine_gradients(gradients, [counts[index] for index in datasets], parameters, sketch=sketch)
        return losses

    def _taken_apart(
        self, batch: Batch, members: list[Tensor], parameters: list[nn.Parameter], losses: Tensor
    ) -> dict[nn.Parameter, Tensor]:
        """Gradients of each dataset's `members`, indices of images, whose `losses` are filled in."""
        if not self._apart:
            chosen = torch.cat(members)
            apart = DatasetGradients([len(images) for images in members], self._device)
            try:
                with self._eager():
                    found = self._losses(self._watched(apart), batch, chosen)
                    gradients = apart.of_sums(found)
            except NotSeparable:  # see `__call__`
                self._apart = True
                self._start_pass()
            else:
                losses[chosen.to(self._device, non_blocking=True)] = found.detach()
                return gradients

        def objective(chosen: Tensor) -> Callable[[], Tensor]:
            def run() -> Tensor:
                found = self._losses(self._model, batch, chosen)
                losses[chosen.to(self._device, non_blocking=True)] = found.detach()
                return found.sum()

            return run

        # In lockstep a dataset that any rank has images of is run by all, if need be on an empty batch.
        runs = [len(chosen) for chosen in members]
        if self._lockstep:
            runs = self._ranks.sum(torch.tensor(runs, device=self._device)).tolist()
        objectives = [objective(chosen) if run else None for chosen, run in zip(members, runs, strict=True)]
        return gradients_one_by_one(objectives, parameters)

    def _watched(self, apart: DatasetGradients) -> Callable[[Tensor], Any]:
        """The model's forward pass, of which `apart` takes the gradients."""

        def forward(pixels: Tensor) -> Any:
            with apart:
                return self._model(pixels.requires_grad_())

        return forward

    def _eager(self) -> AbstractContextManager[Any]:
        """Context in which nothing is compiled: what is compiled cannot be watched."""
        return nullcontext() if self._config.compile == "none" else torch.compiler.set_stance("force_eager")

    def _counts(self, of_image: Tensor) -> list[int]:
        """Number of images of each dataset, from the dataset `of_image`, (n,) int64 on the CPU."""
        return torch.bincount(of_image, minlength=self._datasets).tolist()

    def _sketch(self, datasets: int) -> Sketch:
        return Sketch(datasets, step_seed(self._config.seed, self._step, _ALL_RANKS), self._device)

    # ---- several objectives, sharded or in two passes

    def _in_two_passes(self, batch: Batch) -> Tensor:
        """As `_in_one_pass`, of a model that can be taken apart."""
        sketch = self._sketch(self._datasets)
        for part in self._micro_batches(torch.argsort(batch.dataset, stable=True)):
            self._add_to(sketch, batch, part)
        counts = torch.tensor(self._counts(batch.dataset), dtype=torch.float64)
        counts = counts.to(self._device, non_blocking=True)
        sum_over_ranks([counts, sketch.rows])
        factors = combination(sketch.products(), counts)[0]
        self._start_pass()
        of_image = factors.index_select(0, batch.dataset.to(self._device, non_blocking=True))
        weights = (of_image * self._config.batch_size).float()
        return self._mean(batch, weights, torch.arange(len(batch.images)))

    def _add_to(self, sketch: Sketch, batch: Batch, part: Tensor) -> None:
        """Add the gradients of a micro-batch's images, sorted by dataset, to the `sketch`."""
        counts = self._counts(batch.dataset[part])
        if not len(part):  # Without images a rank still gathers the layers that others use, for a blank one.
            batch, part, counts = batch.blank(), torch.tensor([0]), [1]
            sketch = Sketch(1, 0, self._device)
        apart = DatasetGradients(counts, self._device, sketch)
        with self._eager():
            apart.sketch_sums(self._losses(self._watched(apart), batch, part))

    def _one_by_one_sharded(self, batch: Batch) -> Tensor:
        """As `_in_one_pass`, with a pass for each dataset, of whose gradient every rank keeps its shard."""
        counts = self._counts(batch.dataset)
        total = self._ranks.sum(torch.tensor(counts, dtype=torch.float64, device=self._device))
        present = [index for index, images in enumerate(total.tolist()) if images]
        losses = torch.zeros(len(batch.images), device=self._device)
        # Of the sum of a dataset's losses: `_mean` divides by the batch's size.
        ones = torch.full((len(batch.images),), float(self._config.batch_size), device=self._device)
        found: list[list[Any]] = []
        groups = torch.argsort(batch.dataset, stable=True).split(counts)
        for members in (groups[index] for index in present):
            losses[members.to(self._device, non_blocking=True)] = self._mean(batch, ones, members)
            # Only after a backward pass are the model's parameters the shards.
            parameters = [p for p in self._model.parameters() if p.requires_grad]
            found.append([p.grad for p in parameters])
            self._model.zero_grad(set_to_none=True)
        shards = zip(*([gradient.to_local() for gradient in each] for each in found), strict=True)
        products = scalar_products([torch.stack(rows).flatten(1) for rows in shards])
        sum_over_ranks([products])
        factors = combination(products, total[present])[0].tolist()
        for parameter, *gradients in zip(parameters, *found, strict=True):
            parameter.grad = sum(
                factor * gradient for factor, gradient in zip(factors, gradients, strict=True)
            )
        return losses


def share_factor(config: TrainConfig, ranks: Ranks) -> float:
    """Factor from the sum over a rank's images to a number whose mean over ranks is the batch's mean.

    DDP and FSDP2 average gradients over ranks, which may have unequal shares. Of a batch of 3 images on 2
    ranks, losses a, b | c: (2/3 · (a + b) + 2/3 · c) / 2 = (a + b + c) / 3. `config` has the batch size,
    `ranks` their number.
    """
    return ranks.world_size / config.batch_size


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed in [0, 2^63) of a step's random numbers (dropout): a hash of the run's `seed`, `step` and `rank`.

    As a pure function of the three it leaves no generator state to be saved in checkpoints.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
