"""What a training run says of itself: losses, speed, mixture and validation, to MLflow and the progress line.

All ranks take part in what is summed over them; rank 0 speaks for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed
from torch.utils.flop_counter import FlopCounterMode

import dpt
from datasets_prep.manifest import PreparedDataset
from dpt.metrics import merged
from dpt.predict.depth import evaluation_mode
from pipelines.config import TrainConfig
from pipelines.loading.batches import Batch
from pipelines.tasks.registry import task_of
from pipelines.tracking.journal import MetricJournal
from pipelines.training.board import Pace
from pipelines.training.checkpoint import TrainingState
from pipelines.training.step import StepResult

_SHOWN_PREDICTIONS = 4

Shared = TypeVar("Shared")


class TrainingReport:
    """Counts steps and reports them.

    Args:
        datasets: of the mixture.
        journal: takes rank 0's metrics; None on other ranks.
        say: takes a line for the user; called on rank 0.
        operations: floating-point operations of a step on one image.
        state: what was done before.
    """

    def __init__(
        self,
        config: TrainConfig,
        datasets: Sequence[PreparedDataset],
        journal: MetricJournal | None,
        say: Callable[[str], None],
        device: torch.device,
        operations: float,
        rank: int,
        world_size: int,
        state: TrainingState,
    ) -> None:
        self._config, self._datasets = config, datasets
        self._task = task_of(config)
        self._journal, self._say, self._device = journal, say, device
        self._rank, self._world_size, self._operations = rank, world_size, operations
        self._validated = [d for d in datasets if config.val_split in d.manifest.samples]
        self._pace = Pace(state.step, config.steps)
        self._seen_before = state.seen
        self._seen = torch.zeros(len(datasets), dtype=torch.float64)
        self.skipped = state.skipped
        self.skipped_in_a_row: list[str] = []
        self._row = 0
        if rank == 0:
            self._peak = matrix_rate(device, getattr(torch, config.precision)) * world_size
        self._clear(state.unlogged)

    def _clear(self, unlogged: tuple[float, int] = (0.0, 0)) -> None:
        self._unlogged_before = unlogged
        self._losses: list[torch.Tensor] = []
        self._steps = 0
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

    def count(self, step: int, result: StepResult, batch: Batch) -> None:
        """Count one step; names the samples of one that was left out."""
        self._steps += 1
        self._seen += torch.bincount(batch.dataset, minlength=len(self._datasets))
        if not result.skipped:
            self._losses.append(result.loss)
            self.skipped_in_a_row, self._row = [], 0
            return
        self.skipped += 1
        self._row += 1
        everyone = self._gather((result.offending, batch.sample_ids))
        guilty = [name for offending, _ in everyone for name in offending]
        names = guilty or [name for _, present in everyone for name in present]
        what = "loss" if guilty else "gradient"
        self.skipped_in_a_row += names
        if self._rank == 0:
            self._say(f"step {step} is left out: {what} out of bounds, samples {', '.join(names)}")

    @property
    def gives_up(self) -> bool:
        """Whether too many steps in a row were left out; the same on all ranks."""
        return self._row >= self._config.max_skipped

    def seen_samples(self) -> dict[str, int]:
        """Dataset → number of its samples that the run has drawn; all ranks must ask."""
        seen = self._sum(self._seen.clone()).tolist()
        return {
            d.name: self._seen_before.get(d.name, 0) + int(count)
            for d, count in zip(self._datasets, seen, strict=True)
        }

    def unlogged(self) -> tuple[float, int]:
        """Sum and number of the batches' losses since the last time; all ranks must ask.

        In float64, in which sums of some float32 are exact: a restart in between changes no bit of the mean.
        """
        total = torch.stack([torch.zeros((), device=self._device), *self._losses]).double().sum()
        before, count = self._unlogged_before
        return before + self._sum(total.reshape(1)).item() / self._world_size, count + len(self._losses)

    def log(self, step: int) -> None:
        """Log the means since the last time."""
        total, count = self.unlogged()
        loss = total / count if count else float("nan")
        seen = self.seen_samples()
        if self._rank == 0:
            seconds = time.perf_counter() - self._since
            images = self._steps * self._config.batch_size
            shares = {name: drawn / sum(seen.values()) for name, drawn in seen.items()}
            metrics = self._rates(images / seconds, seconds) | {
                f"share/{name}": share for name, share in shares.items()
            }
            if count:
                metrics["loss"] = loss
            self._log(metrics, step)
            self._say(self._line(step, loss, metrics, shares))
        self._clear()

    def _line(self, step: int, loss: float, metrics: dict[str, float], shares: dict[str, float]) -> str:
        """The progress line."""
        memory = [f"GPU {metrics['gpu_memory_gib']:.1f} GiB"] if "gpu_memory_gib" in metrics else []
        mixture = " ".join(f"{name} {share:.0%}" for name, share in shares.items())
        parts = [
            f"step {step}/{self._config.steps}",
            f"loss {loss:.4f}",
            f"{metrics['images_per_second']:.1f} images/s",
            f"{metrics['step_seconds']:.2f} s a step",
            f"data wait {metrics['data_wait_share']:.0%}",
            f"matrix rate {metrics['matrix_rate_share']:.0%}",
            *memory,
            f"left {self._pace.remaining(step)}",
            f"seen {mixture}",
        ]
        return "  ".join(parts)

    def _rates(self, images_per_second: float, seconds: float) -> dict[str, float]:
        """Metrics of the system itself."""
        rates = {
            "images_per_second": images_per_second,
            "step_seconds": seconds / max(1, self._steps),
            "data_wait_share": self._waited / seconds,
            "matrix_rate_share": images_per_second * self._operations / self._peak,
            "skipped_steps": float(self.skipped),
        }
        if self._device.type == "cuda":
            rates["gpu_memory_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        return rates

    def validate(self, step: int, model: dpt.DPT) -> float | None:
        """Metrics of every dataset with a validation split; returns the deciding one's mean, on all ranks."""
        if not self._validated:
            return None
        before = time.perf_counter()
        metrics: dict[str, float] = {}
        for dataset in self._validated:
            share = self._task.evaluate_share(
                model, dataset, self._config.val_split, self._rank, self._world_size
            )
            sums = merged(self._gather(share))
            metrics |= {f"{name}/{dataset.name}": value for name, value in sums.result().items()}
        deciding = {d.name: metrics[f"{self._task.metric}/{d.name}"] for d in self._validated}
        mean = sum(deciding.values()) / len(deciding)
        if self._rank == 0:
            self._log({**metrics, f"{self._task.metric}/mean": mean}, step)
            each = "  ".join(f"{name} {value:.4f}" for name, value in deciding.items())
            self._say(f"step {step}/{self._config.steps}  {self._task.title} {mean:.4f} ({each})")
            self._show_predictions(step, model)
        self._since += time.perf_counter() - before
        return mean

    def _show_predictions(self, step: int, model: dpt.DPT) -> None:
        picture = self._task.sample_predictions(
            model, self._validated, self._config.val_split, _SHOWN_PREDICTIONS
        )
        assert self._journal is not None, "rank 0 has one"
        self._journal.log_picture(picture, f"predictions/step_{step:08d}.png")

    def _log(self, metrics: dict[str, float], step: int) -> None:
        assert self._journal is not None, "rank 0 has one"
        self._journal.log(metrics, step)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks."""
        if self._world_size > 1:
            values = values.to(self._device)
            torch.distributed.all_reduce(values)
        return values.cpu()

    def _gather(self, value: Shared) -> list[Shared]:
        """Every rank's value, on every rank."""
        everyone = [value] * self._world_size
        if self._world_size > 1:
            torch.distributed.all_gather_object(everyone, value)
        return everyone


_SIDE = {"cpu": 1536, "cuda": 8192}


_ROUNDS = 4


_BACKWARD = 2
"""The backward pass has a product for the gradient of each factor of a product."""


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of this process's fastest large matrix product, measured now."""
    side = _SIDE[device.type]
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_ROUNDS):
        _wait_for(device)
        start = time.perf_counter()
        a @ a
        _wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def training_operations(model: dpt.DPT, crop: tuple[int, int]) -> float:
    """Floating-point operations of a training step on one crop, activation checkpointing left out."""
    image = next(model.parameters()).new_zeros(1, 3, *crop)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), evaluation_mode(model):
        model(image)
    return float(counter.get_total_flops() * (1 + _BACKWARD))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
