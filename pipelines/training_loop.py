"""What each training process runs: the loop over batches, from the newest checkpoint to the last step.

Every process computes its own slice of every batch, so the number of workers changes nothing but speed. Rank
0 also speaks for all: to MLflow, and on the progress line.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed
from ray.train import Checkpoint
from ray.train.torch import get_device, prepare_model
from torch import nn

import dpt
from datasets_prep.manifest import PreparedDataset, open_datasets
from dpt.losses import ScaleShiftInvariantLoss
from dpt.metrics import MetricSums
from dpt.transforms import normalise
from pipelines.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from pipelines.config import ConfigError, ModelSection, TrainConfig
from pipelines.evaluate import evaluate_share, merged, sample_predictions
from pipelines.loading import Batch, LoaderSettings, training_batches
from pipelines.progress import Pace
from pipelines.schedule import learning_rate_factor
from pipelines.tracking import Run

_SHOWN_PREDICTIONS = 4


@dataclass(frozen=True, slots=True)
class Setup:
    """What every training process is given; plain data, for it travels between machines."""

    config: dict[str, Any]
    uris: list[str]
    run: Run
    use_gpu: bool
    threads: int


def build_model(section: ModelSection, crop: int) -> dpt.DPT:
    """The model of a config; it remembers the size of its training crops as its own inference size.

    Raises:
        ConfigError: if there is no such model or override.
    """
    settings = {"image_size": crop, **section.overrides}
    try:
        return dpt.create_model(section.name, pretrained=section.pretrained, **settings)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def train_loop(arguments: dict[str, Any]) -> None:
    """What each training process runs."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    # DDP remarks on the layout of a few one-row gradients, where it costs nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    setup: Setup = arguments["setup"]
    config = TrainConfig(**setup.config)
    datasets = open_datasets(setup.uris)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if not setup.use_gpu:
        torch.set_num_threads(setup.threads)
    # Decoder weights are drawn here; the same on every rank, and DDP broadcasts rank 0's anyway.
    torch.manual_seed(config.seed)
    model = build_model(config.model, config.crop)
    parallel = prepare_model(model)
    groups = dpt.parameter_groups(model, config.optimizer.backbone_lr, config.optimizer.decoder_lr)
    optimizer = torch.optim.Adam(
        [{**group, "initial_lr": group["lr"]} for group in groups], betas=config.optimizer.betas
    )
    digests = {dataset.name: dataset.manifest.digest for dataset in datasets}
    start = _resume(model, optimizer, digests)
    batches = training_batches(
        _loader_settings(config, setup, datasets, start, rank, world_size), config.loader_workers
    )
    loop = _Loop(config, setup, datasets, rank, world_size, start, arguments["board"])
    for step, batch in enumerate(loop.timed(batches), start=start + 1):
        set_learning_rates(optimizer, config, step - 1)
        loss = training_step(parallel, optimizer, batch, config, model.mean, model.std)
        loop.count(loss, batch)
        if step % config.log_every == 0 or step == config.steps:
            loop.log(step)
        if step % config.validate_every == 0 or step == config.steps:
            loop.validate(step, model)
        if step % config.checkpoint_every == 0 or step == config.steps:
            _report(step, model, optimizer, digests, rank)


def set_learning_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, done: int) -> None:
    """Give backbone and decoder their learning rates for the step after `done` steps."""
    settings = config.optimizer
    factor = learning_rate_factor(done, config.steps, settings.schedule, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: TrainConfig,
    mean: Sequence[float],
    std: Sequence[float],
) -> torch.Tensor:
    """One optimiser step on one rank's share of a batch; returns the mean loss of its images, detached.

    Args:
        model: perhaps wrapped for data parallelism.
        mean, std: the bare model's, for normalising RGB.
    """
    device = next(model.parameters()).device
    images = normalise(batch.images.to(device, non_blocking=True), mean, std)
    target = batch.inverse_depth.to(device, non_blocking=True).float()
    valid = ~target.isnan()
    criterion = ScaleShiftInvariantLoss(
        config.loss.trim, config.loss.gradient_weight, config.loss.gradient_scales
    )
    mixed = config.precision == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext():
        prediction = model(images)
    loss = criterion(prediction.float(), target.nan_to_num(0.0), valid).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _loader_settings(
    config: TrainConfig,
    setup: Setup,
    datasets: Sequence[PreparedDataset],
    start: int,
    rank: int,
    world_size: int,
) -> LoaderSettings:
    return LoaderSettings(
        uris=setup.uris,
        split=config.train_split,
        weights=[config.weights[d.name] for d in datasets] if config.weights else None,
        seed=config.seed,
        batch_size=config.batch_size,
        crop=config.crop,
        flip=config.flip,
        steps=config.steps,
        start=start,
        rank=rank,
        world_size=world_size,
    )


def _resume(model: dpt.DPT, optimizer: torch.optim.Optimizer, digests: dict[str, str]) -> int:
    """Restore the newest checkpoint, if there is one; returns the number of steps done."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return load_checkpoint(Path(folder), model, optimizer, digests)


def _report(
    step: int, model: dpt.DPT, optimizer: torch.optim.Optimizer, digests: dict[str, str], rank: int
) -> None:
    """Hand a checkpoint to Ray Train, which stores it; every rank waits here for the others."""
    if rank:
        ray.train.report({"step": step})
        return
    with tempfile.TemporaryDirectory(prefix="dpt-checkpoint-") as folder:
        save_checkpoint(Path(folder), model, optimizer, TrainingState(step, digests))
        name = f"step_{step:08d}"
        ray.train.report({"step": step}, Checkpoint.from_directory(folder), checkpoint_dir_name=name)


class _Loop:
    """What the training loop counts, and says of itself: to MLflow, and on the progress line."""

    def __init__(
        self,
        config: TrainConfig,
        setup: Setup,
        datasets: Sequence[PreparedDataset],
        rank: int,
        world_size: int,
        start: int,
        board: Any,
    ) -> None:
        self._config, self._run, self._datasets, self._board = config, setup.run, datasets, board
        self._rank, self._world_size = rank, world_size
        self._validated = [d for d in datasets if config.val_split in d.manifest.samples]
        self._pace = Pace(start, config.steps)
        self._seen = torch.zeros(len(datasets), dtype=torch.float64)
        self._clear()

    def _clear(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._waited = 0.0
        self._since = time.perf_counter()

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time that is spent waiting for them is counted."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def count(self, loss: torch.Tensor, batch: Batch) -> None:
        """Count one step."""
        self._losses.append(loss)
        self._seen += torch.bincount(batch.dataset, minlength=len(self._datasets))

    def log(self, step: int) -> None:
        """Log the means since the last time; all ranks take part."""
        loss = torch.stack(self._losses).mean().double().reshape(1)
        loss, seen = self._sum(loss) / self._world_size, self._sum(self._seen.clone())
        seconds = time.perf_counter() - self._since
        images = len(self._losses) * self._config.batch_size
        wait = self._waited / seconds
        if self._rank == 0:
            metrics = {"loss": loss.item(), "images_per_second": images / seconds, "data_wait_share": wait}
            shares = {
                f"share/{d.name}": s
                for d, s in zip(self._datasets, (seen / seen.sum()).tolist(), strict=True)
            }
            self._run.log_metrics({**metrics, **shares}, step)
            self._say(
                f"step {step}/{self._config.steps}  loss {loss.item():.4f}  {images / seconds:.1f} images/s  "
                f"data wait {wait:.0%}  left {self._pace.remaining(step)}"
            )
        self._clear()

    def validate(self, step: int, model: dpt.DPT) -> None:
        """AbsRel and δ of every dataset that has a validation split; all ranks take part."""
        if not self._validated:
            return
        before = time.perf_counter()
        metrics: dict[str, float] = {}
        for dataset in self._validated:
            share = evaluate_share(
                model, dataset, self._config.val_split, self._config.caps, self._rank, self._world_size
            )
            sums = merged(self._gather(share))
            metrics |= {f"{name}/{dataset.name}": value for name, value in sums.result().items()}
        if self._rank == 0:
            mean = sum(metrics[f"abs_rel/{d.name}"] for d in self._validated) / len(self._validated)
            self._run.log_metrics({**metrics, "abs_rel/mean": mean}, step)
            each = "  ".join(f"{d.name} {metrics[f'abs_rel/{d.name}']:.4f}" for d in self._validated)
            self._say(f"step {step}/{self._config.steps}  AbsRel {mean:.4f} ({each})")
            picture = sample_predictions(model, self._validated, self._config.val_split, _SHOWN_PREDICTIONS)
            self._run.log_picture(picture, f"predictions/step_{step:08d}.png")
        self._since += time.perf_counter() - before

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks."""
        if self._world_size > 1:
            values = values.to(get_device())
            torch.distributed.all_reduce(values)
        return values.cpu()

    def _gather(self, sums: MetricSums) -> list[MetricSums]:
        """Every rank's sums, on every rank."""
        everyone = [sums] * self._world_size
        if self._world_size > 1:
            torch.distributed.all_gather_object(everyone, sums)
        return everyone

    def _say(self, line: str) -> None:
        self._board.write.remote(line)
