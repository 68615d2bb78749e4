"""What each training process runs: the loop over batches, from the newest checkpoint to the last step.

Every process computes its own slice of every batch, so the number of workers changes nothing but speed, and
what a step draws at random is a function of the seed and the step: a run that was cut off anywhere goes on as
if it had not been.
"""

from __future__ import annotations

import faulthandler
import logging
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed
from ray.train.torch import get_device

import dpt
from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.storage.folder import Folder
from dpt.ema import MovingAverage
from pipelines.cluster.ray_private import report_logger
from pipelines.config import TrainConfig
from pipelines.loading.batches import LoaderSettings, training_batches
from pipelines.tasks.registry import task_of
from pipelines.tracking.journal import MetricJournal
from pipelines.tracking.runs import Run
from pipelines.training.checkpoint import TrainingState, restore, take_snapshot
from pipelines.training.checkpoint_store import CheckpointNotSaved, CheckpointStore
from pipelines.training.interruptions import Interruptions
from pipelines.training.optimizer import create_optimizer, set_learning_rates
from pipelines.training.parallel import gathered, share_model
from pipelines.training.report import TrainingReport, training_operations
from pipelines.training.stages import run_stages
from pipelines.training.start import build_model, load_kept
from pipelines.training.step import TrainingStep

_LAST_METRICS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What every training process is given; plain data, for it travels between machines.

    Attributes:
        config: the resolved `TrainConfig`.
        uris: the datasets' version folders, sorted by dataset name.
        folder: the run's own.
        run: its MLflow run.
        identity: what decides its curve, as every checkpoint records it.
        start: folder of the model that it starts from, if that is not the config's network, untrained.
        threads: PyTorch threads of a process without GPU.
    """

    config: dict[str, Any]
    uris: list[str]
    folder: str
    run: Run
    identity: dict[str, Any]
    start: str | None
    use_gpu: bool
    threads: int


def train_loop(arguments: dict[str, Any]) -> None:
    """What each training process runs."""
    for noisy in ("ray.train", report_logger()):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # DDP remarks on the layout of a few one-row gradients, where it costs nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    setup: Setup = arguments["setup"]
    if not setup.use_gpu:
        torch.set_num_threads(setup.threads)
    context = ray.train.get_context()
    process = _TrainingProcess(setup, arguments["board"], context.get_world_rank(), context.get_world_size())
    try:
        process.run()
    finally:
        faulthandler.cancel_dump_traceback_later()


class _TrainingProcess:
    """One rank of a run, from the newest checkpoint on."""

    def __init__(self, setup: Setup, board: Any, rank: int, world_size: int) -> None:
        self._setup, self._board, self._rank, self._world_size = setup, board, rank, world_size
        self._config = config = TrainConfig(**setup.config)
        self._datasets = open_datasets(setup.uris)
        self._live()
        # Decoder weights are drawn here; the same on every rank, and DDP broadcasts rank 0's anyway.
        torch.manual_seed(config.seed)
        self._task = task_of(config)
        self._model = self._initial_model()
        self._model.set_checkpointing(config.activation_checkpointing)
        operations = training_operations(self._model, config.crop_size) if rank == 0 else 0.0
        if config.channels_last and config.parallel == "ddp":
            # Sharded weights must be contiguous; the order of the images is enough for all that follows.
            self._model.to(memory_format=torch.channels_last)
        if config.compile:
            self._model.compile()
        self._parallel = share_model(self._model, config.parallel, world_size)
        self._optimizer = create_optimizer(self._model, config)
        decay = config.optimizer.ema
        self._average = MovingAverage(self._model, decay) if decay else None
        self._store = CheckpointStore(Folder(setup.folder), config.keep_checkpoints, self._say)
        self._state = self._resume()
        self._journal = MetricJournal(setup.run, self._state.unsent, self._say) if rank == 0 else None
        self._report = TrainingReport(
            config, self._datasets, self._journal, self._say, get_device(), operations, rank, world_size,
            self._state,
        )  # fmt: skip

    def run(self) -> None:
        """Train until the last step, or until the driver wants an end."""
        config, start = self._config, self._state.step
        train = TrainingStep(
            self._model, self._parallel, self._optimizer, self._average, config, len(self._datasets),
            self._rank, self._world_size,
        )  # fmt: skip
        watch = Interruptions(self._board, self._rank, self._world_size, get_device(), self._say)
        settings = loader_settings(
            config, self._setup.uris, self._datasets, start, self._rank, self._world_size
        )
        step = start
        batches = training_batches(settings, config.loader_workers, config.executor)
        for step, batch in enumerate(self._report.timed(batches), start=start + 1):
            self._live()
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

    def _initial_model(self) -> dpt.DPT:
        start, config = self._setup.start, self._config
        model = build_model(config.model, config.crop_size) if start is None else load_kept(start).train()
        return model.double() if config.precision == "float64" else model

    def _resume(self) -> TrainingState:
        """Restore the newest whole checkpoint; rank 0 chooses it for all."""
        chosen = [self._store.newest() if self._rank == 0 else None]
        if self._world_size > 1:
            torch.distributed.broadcast_object_list(chosen, src=0)
        state = chosen[0]
        if state is None:
            return TrainingState(0)
        with tempfile.TemporaryDirectory(prefix="dpt-checkpoint-") as scratch:
            folder = self._store.fetch(state.step, Path(scratch))
            restore(folder, self._parallel, self._optimizer, self._average)
        self._say(f"going on from step {state.step}")
        return state

    def _validate(self, step: int) -> float | None:
        """The score of a checkpoint, lower is better; all ranks validate."""
        self._live()
        with self._average.swapped_in() if self._average else nullcontext(), gathered(self._model):
            score = self._report.validate(step, self._model)
        ray.train.report({"step": step} | ({} if score is None else {self._task.metric: score}))
        return score if score is None or not self._task.larger_is_better else -score

    def _save(self, step: int, score: float | None) -> None:
        """Copy the run's state; rank 0 writes it while training goes on."""
        self._live()
        seen, unlogged = self._report.seen_samples(), self._report.unlogged()
        if self._rank and self._config.parallel == "ddp":
            return
        unsent = self._journal.unsent() if self._journal else []
        run = asdict(self._setup.run)
        state = TrainingState(
            step, self._setup.identity, run, score, self._report.skipped, seen, unlogged, unsent
        )
        config = self._model.config.to_dict()
        snapshot = take_snapshot(self._parallel, self._optimizer, self._average, config, state)
        if self._rank == 0:
            self._store.save(snapshot)

    def _finish(self, step: int) -> None:
        if self._rank == 0:
            self._live()
            if step > self._state.step:
                self._close_store(step)
            assert self._journal is not None
            left = self._journal.close(_LAST_METRICS_SECONDS)
            if left:
                self._say(f"{len(left)} metrics have not reached MLflow; `dpt train --resume` sends them")
            if self._report.gives_up:
                names = ", ".join(dict.fromkeys(self._report.skipped_in_a_row))
                reason = f"{self._config.max_skipped} steps in a row were left out; their samples: {names}"
                ray.get(self._board.fail.remote(reason))

    def _close_store(self, step: int) -> None:
        """Wait for the last checkpoint; that it cannot be saved is nothing that a restart would mend."""
        try:
            self._store.close(step)
        except CheckpointNotSaved as error:
            ray.get(self._board.fail.remote(str(error)))

    def _live(self) -> None:
        """Put off the end of this process by the time after which it is taken for hung.

        Python's own watchdog thread ends it even if the interpreter is stuck, and says where; Ray Train then
        starts the ranks again from the newest checkpoint.
        """
        faulthandler.dump_traceback_later(60 * self._config.hang_minutes, exit=True, file=2)

    def _say(self, line: str) -> None:
        if self._rank == 0:
            self._board.write.remote(line)


def loader_settings(
    config: TrainConfig,
    uris: Sequence[str],
    datasets: Sequence[PreparedDataset],
    start: int,
    rank: int,
    world_size: int,
) -> LoaderSettings:
    """What decides a rank's stream of batches from step `start` on."""
    return LoaderSettings(
        uris=uris,
        split=config.train_split,
        stages=run_stages(config, datasets),
        seed=config.seed,
        batch_size=config.batch_size,
        crops=task_of(config).crops,
        start=start,
        rank=rank,
        world_size=world_size,
    )
