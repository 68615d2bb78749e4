"""What each training process runs: the loop over batches, from the newest checkpoint to the last step.

Every process computes its own slice of every batch, so the number of workers changes nothing but speed. What
a step draws at random is a function of the seed and the step, so an interrupted run resumes as if it had not
been interrupted.
"""

from __future__ import annotations

import faulthandler
import logging
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device

from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.storage.folder import Folder
from dpt.ema import MovingAverage
from pipelines.cluster.ray_private import report_logger
from pipelines.config import TrainConfig
from pipelines.loading.batches import LoaderSettings, training_batches
from pipelines.loading.on_device import on_device
from pipelines.loading.perturbation import Perturbation
from pipelines.tasks.registry import task_of
from pipelines.tracking.journal import MetricJournal
from pipelines.tracking.model_reference import load_checkpoint
from pipelines.tracking.runs import Run
from pipelines.training.checkpoint import TrainingState, restore, take_snapshot
from pipelines.training.checkpoint_store import CheckpointNotSaved, CheckpointStore
from pipelines.training.interruptions import Interruptions
from pipelines.training.optimizer import create_optimizer, set_learning_rates
from pipelines.training.parallel import gathered, share_model
from pipelines.training.ranks import Ranks
from pipelines.training.report import TrainingReport, training_operations
from pipelines.training.stages import run_stages
from pipelines.training.start import build_model
from pipelines.training.step import TrainingStep


@dataclass(frozen=True, slots=True)
class Setup:
    """What the driver gives every training process; picklable, because they may run on other machines.

    Attributes:
        config: the resolved config.
        uris: the datasets' version folders, sorted by dataset name.
        folder: URI of the run's folder.
        run: its MLflow run.
        identity: what decides its curve, as every checkpoint records it.
        start: folder of the model that it starts from; None for a new one of the config.
        use_gpu: whether each process has a GPU.
        threads: PyTorch threads of a process without GPU.
    """

    config: TrainConfig
    uris: list[str]
    folder: str
    run: Run
    identity: dict[str, Any]
    start: str | None
    use_gpu: bool
    threads: int


def run_rank(setup: Setup, board: Any) -> None:
    """Run one rank of the run that `setup` describes, from its newest checkpoint on; `board` is the actor."""
    for noisy in ("ray.train", report_logger()):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # DDP warns of the strides of a few one-row gradients, which cost nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    if not setup.use_gpu:
        torch.set_num_threads(setup.threads)
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    if ray.get(board.failure.remote()):  # Ray Train restarts the ranks, whatever the reason
        return
    try:
        _TrainingProcess(setup, board, ranks).run()
    except UserError as error:
        ray.get(board.fail.remote(_reason(error)))
        if ranks.world_size > 1:  # the others would wait for this one for ever
            raise RuntimeError(_reason(error)) from None
    finally:
        faulthandler.cancel_dump_traceback_later()


def _reason(error: UserError) -> str:
    """What an `error` says; a loading process's comes with its traceback, whose last line it is."""
    said = str(error).strip()
    if "Traceback (most recent call last)" not in said:
        return said
    return said.splitlines()[-1].partition(f"{type(error).__name__}: ")[2]


class _TrainingProcess:
    """One rank of a run, from the newest checkpoint on."""

    def __init__(self, setup: Setup, board: Any, ranks: Ranks) -> None:
        self._setup, self._board, self._ranks = setup, board, ranks
        self._config = config = setup.config
        self._datasets = open_datasets(setup.uris)
        self._reset_watchdog()
        # Decoder weights are drawn here; the same on every rank, and DDP broadcasts rank 0's anyway.
        torch.manual_seed(config.seed)
        self._task, start, crop = task_of(config), setup.start, config.crop_size
        self._model = model = load_checkpoint(start).train() if start else build_model(config.model, crop)
        if config.precision == "float64":
            model.double()
        model.set_checkpointing(config.activation_checkpointing)
        model.set_upsampling(as_given=config.upsampling == "bfloat16")
        operations = training_operations(model, crop) if ranks.is_first else 0.0
        if config.channels_last and config.parallel == "ddp":
            # Sharded weights must be contiguous; channels-last images suffice for all later activations.
            model.to(memory_format=torch.channels_last)
        if config.compile:
            model.compile()
        self._parallel = share_model(model, config.parallel, ranks)
        self._optimizer = create_optimizer(model, config)
        decay = config.optimizer.ema
        self._average = MovingAverage(model, decay) if decay else None
        self._store = CheckpointStore(Folder(setup.folder), config.keep_checkpoints, self._say)
        self._state = self._resume()
        self._journal = MetricJournal(setup.run, self._state.unsent, self._say) if ranks.is_first else None
        self._report = TrainingReport(
            config, self._datasets, self._journal, self._say, get_device(), operations, ranks, self._state
        )

    def run(self) -> None:
        """Train until the last step, or until the driver requests a stop."""
        config, start = self._config, self._state.step
        train = TrainingStep(
            self._model, self._parallel, self._optimizer, self._average, config,
            [dataset.name for dataset in self._datasets], self._ranks,
        )  # fmt: skip
        watch = Interruptions(self._board, self._ranks, get_device(), self._say)
        settings = loader_settings(config, self._datasets, start, self._ranks)
        batches = training_batches(settings, config.loader_workers, config.executor)
        step = start
        for step, batch in enumerate(self._report.timed(on_device(batches, get_device())), start + 1):
            self._reset_watchdog()
            set_learning_rates(self._optimizer, config, step - 1)
            self._report.count(step, train(batch, step), batch)
            ends = step == config.steps
            stops, saves = watch.after_step(self._report.gives_up)
            if step % config.log_every == 0 or ends:
                self._report.log(step)
            score = self._validate(step) if step % config.validate_every == 0 or ends else None
            if step % config.checkpoint_every == 0 or ends or stops or saves:
                self._save(step, score)
            if stops:
                break
        self._finish(step)

    def _resume(self) -> TrainingState:
        """Restore the newest whole checkpoint; rank 0 chooses it for all."""
        state = self._ranks.broadcast(self._store.newest() if self._ranks.is_first else None)
        if state is None:
            return TrainingState(0)
        with tempfile.TemporaryDirectory(prefix="dpt-checkpoint-") as scratch:
            folder = self._store.fetch(state.step, Path(scratch))
            restore(folder, self._parallel, self._optimizer, self._average)
        self._say(f"resuming from step {state.step}")
        return state

    def _validate(self, step: int) -> float | None:
        """Score of a checkpoint, lower is better; all ranks validate."""
        self._reset_watchdog()
        with self._average.swapped_in() if self._average else nullcontext(), gathered(self._model):
            score = self._report.validate(step, self._model)
        ray.train.report({"step": step} | ({} if score is None else {self._task.metric: score}))
        return score if score is None or not self._task.larger_is_better else -score

    def _save(self, step: int, score: float | None) -> None:
        """Copy the run's state to the CPU; rank 0 writes it while training continues."""
        self._reset_watchdog()
        seen, unlogged = self._report.seen_samples(), self._report.unlogged()
        if self._config.parallel == "ddp" and not self._ranks.is_first:
            return
        unsent = self._journal.unsent() if self._journal else []
        state = TrainingState(
            step, self._setup.identity, self._setup.run.record(), score, self._report.skipped, seen, unlogged,
            unsent,
        )  # fmt: skip
        config = self._model.config.to_dict()
        snapshot = take_snapshot(self._parallel, self._optimizer, self._average, config, state)
        if self._ranks.is_first:
            self._store.save(snapshot)

    def _finish(self, step: int) -> None:
        """Wait for the last checkpoint and metrics; tell the driver of what a restart would not fix."""
        if self._journal is None:
            return
        self._reset_watchdog()
        if step > self._state.step:
            try:
                self._store.close(step)
            except CheckpointNotSaved as error:
                ray.get(self._board.fail.remote(str(error)))
        left = self._journal.close(seconds=60.0)
        if left:
            self._say(f"{len(left)} metrics have not reached MLflow; `dpt train --resume` sends them")
        if self._report.gives_up:
            names = ", ".join(dict.fromkeys(self._report.skipped_in_a_row))
            reason = f"{self._config.max_skipped} steps in a row were skipped; their samples: {names}"
            ray.get(self._board.fail.remote(reason))

    def _reset_watchdog(self) -> None:
        """Give this process another `hang_minutes` before it is ended as hung.

        Python's own watchdog thread ends it even if the interpreter is stuck, and prints the traceback; Ray
        Train then restarts the ranks from the newest checkpoint.
        """
        faulthandler.dump_traceback_later(60 * self._config.hang_minutes, exit=True, file=2)

    def _say(self, line: str) -> None:
        if self._ranks.is_first:
            self._board.write.remote(line)


def loader_settings(
    config: TrainConfig, datasets: Sequence[PreparedDataset], start: int, ranks: Ranks
) -> LoaderSettings:
    """What decides this rank's stream of batches after `start` steps, of all `ranks`.

    `config` and `datasets`, sorted by name, are those of the run.
    """
    perturbed = [index for index, d in enumerate(datasets) if d.name in config.perturb.datasets]
    return LoaderSettings(
        uris=[dataset.folder.uri for dataset in datasets],
        split=config.train_split,
        stages=run_stages(config, datasets),
        seed=config.seed,
        batch_size=config.batch_size,
        crops=task_of(config).crops,
        start=start,
        rank=ranks.rank,
        world_size=ranks.world_size,
        perturb=Perturbation(config.perturb, tuple(perturbed)) if perturbed else None,
    )
