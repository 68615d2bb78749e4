"""What a training run reports to MLflow and the terminal: losses, throughput, mixture and validation.

All ranks take part in what is summed over them; rank 0 reports. The use of the hardware is given as a share
of the rate of a large matrix product that is measured on the same device, not of a data sheet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import torch
from torch.utils.flop_counter import FlopCounterMode

import dpt
from datasets_prep.manifest import PreparedDataset
from dpt.metrics import merged
from dpt.predict.depth import evaluation_mode
from pipelines.config import TrainConfig
from pipelines.loading.batches import Batch
from pipelines.tasks.registry import task_of
from pipelines.tracking.journal import MetricJournal
from pipelines.tracking.metric_keys import MEAN, keyed, with_mean
from pipelines.training.checkpoint import TrainingState
from pipelines.training.gauges import TrainingGauges
from pipelines.training.host_copy import lag
from pipelines.training.ranks import Ranks
from pipelines.training.step import StepResult

_SHOWN_PREDICTIONS = 4

_MATRIX_SIDE = {"cpu": 1536, "cuda": 8192}
_MATRIX_PRODUCTS = 4
_BACKWARD = 2
"""FLOPs of the backward over those of the forward pass: each product has one per factor's gradient."""


class TrainingReport:
    """Counts the steps of a run of `config` on the mixture of `datasets`, and reports them.

    On rank 0 of the `ranks`, `journal` (None elsewhere) takes the metrics and `say` a line for the user.
    Reductions take place on the `device`. `operations` are the FLOPs of a training step on one image, `state`
    is that of the checkpoint that the run resumes from, `name` the run's name in Ray's metrics.
    """

    def __init__(
        self,
        config: TrainConfig,
        datasets: Sequence[PreparedDataset],
        journal: MetricJournal | None,
        say: Callable[[str], None],
        device: torch.device,
        operations: float,
        ranks: Ranks,
        state: TrainingState,
        name: str,
    ) -> None:
        self._config, self._datasets, self._ranks, self._task = config, datasets, ranks, task_of(config)
        self._journal, self._say, self._device, self._operations = journal, say, device, operations
        self._validated = [d for d in datasets if config.val_split in d.manifest.samples]
        self._resumed, self._started = state, time.perf_counter()
        self._seen = torch.zeros(len(datasets), dtype=torch.float64)
        self.skipped, self._row = state.skipped, 0
        self.skipped_in_a_row: list[str] = []
        self._running: deque[tuple[int, StepResult]] = deque()
        if ranks.is_first:
            self._gauges = TrainingGauges(name)
            self._peak = matrix_rate(device, getattr(torch, config.precision)) * ranks.world_size
        self._clear(state.unlogged)

    def _clear(self, unlogged: tuple[float, int] = (0.0, 0)) -> None:
        self._unlogged_before = unlogged
        self._losses: list[torch.Tensor] = []
        self._steps, self._waited, self._since = 0, 0.0, time.perf_counter()

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same `batches`; the time spent waiting for them is counted."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def count(self, step: int, result: StepResult, batch: Batch) -> None:
        """Count step number `step`, with its `result` on this rank's share `batch`; report skipped ones."""
        self._steps += 1
        self._seen += torch.bincount(batch.dataset, minlength=len(self._datasets))
        self._running.append((step, result))
        self.settle(lag(self._device))

    def settle(self, running: int = 0) -> None:
        """Take in how the steps ended, but for the last few, still `running`; on all ranks alike."""
        while len(self._running) > running:
            self._settle(*self._running.popleft())

    def _settle(self, step: int, result: StepResult) -> None:
        if not result.skipped:
            self._losses.append(result.loss)
            self.skipped_in_a_row, self._row = [], 0
            return
        self.skipped += 1
        self._row += 1
        shares = self._ranks.gather((result.offending, result.sample_ids))
        offending = [name for names, _ in shares for name in names]
        names = offending or [name for _, present in shares for name in present]
        what = "loss" if offending else "gradient"
        self.skipped_in_a_row += names
        if self._ranks.is_first:
            self._say(f"step {step} skipped: {what} out of bounds, samples {', '.join(names)}")

    @property
    def gives_up(self) -> bool:
        """Whether too many steps in a row were skipped; the same on all ranks."""
        return self._row >= self._config.max_skipped

    def seen_samples(self) -> dict[str, int]:
        """Dataset → number of its samples that the run has drawn; all ranks must call it."""
        seen = self._ranks.sum(self._seen.to(self._device)).tolist()
        return {
            d.name: self._resumed.seen.get(d.name, 0) + int(count)
            for d, count in zip(self._datasets, seen, strict=True)
        }

    def unlogged(self) -> tuple[float, int]:
        """Sum and number of the batches' losses since they were last logged; all ranks must call it.

        A checkpoint between two logged steps has the sum of the first part. In float64, where the sum of that
        few float32 is exact, adding the second part to it gives the same bits as a run without a restart.
        """
        self.settle()
        total = torch.stack([torch.zeros((), device=self._device), *self._losses]).double().sum()
        before, count = self._unlogged_before
        mean_over_ranks = self._ranks.sum(total).item() / self._ranks.world_size
        return before + mean_over_ranks, count + len(self._losses)

    def log(self, step: int) -> None:
        """Log the means since the last call, as those of step number `step`; all ranks must call it."""
        total, count = self.unlogged()
        seen = self.seen_samples()
        if self._journal is not None:
            shares = {name: drawn / sum(seen.values()) for name, drawn in seen.items()}
            metrics = self._rates() | {f"share/{name}": share for name, share in shares.items()}
            if count:
                metrics["loss"] = total / count
            self._journal.log(metrics, step)
            self._gauges.set(step, metrics, seen)
            self._say(self._line(step, metrics, shares))
        self._clear()

    def _line(self, step: int, metrics: dict[str, float], shares: dict[str, float]) -> str:
        """The progress line."""
        done = max(1, step - self._resumed.step)
        seconds = (time.perf_counter() - self._started) / done * (self._config.steps - step)
        memory = f"GPU {metrics['gpu_memory_gib']:.1f} GiB  " if "gpu_memory_gib" in metrics else ""
        mixture = " ".join(f"{name} {share:.0%}" for name, share in shares.items())
        return (
            f"step {step}/{self._config.steps}  loss {metrics.get('loss', float('nan')):.4f}  "
            f"{metrics['images_per_second']:.1f} images/s  {metrics['step_seconds']:.2f} s/step  "
            f"data wait {metrics['data_wait_share']:.0%}  matrix rate {metrics['matrix_rate_share']:.0%}  "
            f"{memory}ETA {timedelta(seconds=round(seconds))}  seen {mixture}"
        )

    def _rates(self) -> dict[str, float]:
        """Metrics of the system itself, since losses were last logged."""
        seconds = time.perf_counter() - self._since
        images_per_second = self._steps * self._config.batch_size / seconds
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
        """Evaluate a whole `model` after `step` steps; all ranks must call it.

        Returns:
            the mean of the task's metric over the datasets with a validation split, if any, on all ranks.
        """
        if not self._validated:
            return None
        before = time.perf_counter()
        split, place = self._config.val_split, (self._ranks.rank, self._ranks.world_size)
        results: dict[str, dict[str, float]] = {}
        for dataset in self._validated:
            sums = merged(self._ranks.gather(self._task.evaluate_share(model, dataset, split, *place)))
            results[dataset.name] = sums.result()
        deciding = {name: result[self._task.metric] for name, result in results.items()}
        averaged = with_mean(results)
        mean = averaged[MEAN][self._task.metric]
        if self._journal is not None:
            self._journal.log(keyed(self._task.protocol, averaged), step)
            each = "  ".join(f"{name} {value:.4f}" for name, value in deciding.items())
            self._say(f"step {step}/{self._config.steps}  {self._task.title} {mean:.4f} ({each})")
            picture = self._task.sample_predictions(model, self._validated, split, _SHOWN_PREDICTIONS)
            self._journal.log_picture(picture, f"predictions/step_{step:08d}.png")
        self._since += time.perf_counter() - before
        return mean


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of this process's fastest large matrix product of a `dtype` on a `device`, measured now."""
    side = _MATRIX_SIDE[device.type]
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_MATRIX_PRODUCTS):
        wait_for(device)
        start = time.perf_counter()
        a @ a
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def training_operations(model: dpt.DPT, crop: tuple[int, int]) -> float:
    """FLOPs of a training step of `model` on one `crop` (height, width), without activation checkpointing."""
    image = next(model.parameters()).new_zeros(1, 3, *crop)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), evaluation_mode(model):
        model(image)
    return float(counter.get_total_flops() * (1 + _BACKWARD))


def wait_for(device: torch.device) -> None:
    """Wait for the kernels that run on a `device`, if that is a GPU: they run asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
