"""A run's checkpoints on any storage: saved in the background, pruned, found again after a crash.

The run's folder has one folder per checkpoint, `step_00003600`. Training continues while one is being
written. A storage failure does not end the run: the write is retried, then that checkpoint is dropped; only
the last one of a run has to succeed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from math import isfinite
from pathlib import Path

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from dpt.weights.folder import CONFIG
from pipelines.training import checkpoint
from pipelines.training.checkpoint import STATE_FILE, DamagedCheckpoint, Snapshot, TrainingState

_STEP = re.compile(r"step_(\d{8,})")
_PAUSES = (1.0, 4.0)
"""Seconds before each retry of a whole checkpoint, on top of the retries of each remote request."""


class CheckpointNotSaved(UserError):
    """A run's last checkpoint could not be written; the run can be resumed from the previous one."""


def checkpoint_name(step: int) -> str:
    """Name of the folder of the checkpoint after `step` steps."""
    return f"step_{step:08d}"


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: the run's folder.
        keep: number of newest checkpoints to keep, besides the best one.
        say: called, from another thread, with a line about any failure.
    """

    def __init__(self, folder: Folder, keep: int, say: Callable[[str], None]) -> None:
        self._folder, self._keep, self._say = folder, keep, say
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None
        self._scores: dict[int, float | None] | None = None
        self._saved: int | None = None

    def steps(self) -> list[int]:
        """Steps that have a folder, complete or not, ascending."""
        matches = [_STEP.fullmatch(name) for name in self._folder.children()]
        return sorted(int(match[1]) for match in matches if match)

    def newest(self) -> TrainingState | None:
        """State of the newest intact checkpoint, if any; says which ones are damaged, and how."""
        steps = self.steps()
        for step in reversed(steps):
            if state := self._verified(step):
                return state
        if steps:
            self._say(f"no checkpoint in {self._folder.uri} is intact: starting from scratch")
        return None

    def _verified(self, step: int) -> TrainingState | None:
        try:
            with tempfile.TemporaryDirectory(prefix="dpt-checkpoint-") as scratch:
                return checkpoint.verify(self.fetch(step, Path(scratch)))
        except DamagedCheckpoint as error:
            self._say(f"checkpoint {error}: falling back to the previous one")
            return None

    def fetch(self, step: int, scratch: Path) -> Path:
        """The checkpoint of `step` as a local folder: itself, or a copy in `scratch` if storage is remote."""
        folder = self._folder / checkpoint_name(step)
        if folder.is_local:
            return Path(folder.path)
        target = scratch / checkpoint_name(step)
        target.mkdir()
        for name in folder.children():
            (target / name).write_bytes(folder.read_bytes(name))
        return target

    def save(self, snapshot: Snapshot) -> None:
        """Start writing `snapshot` in the background, after waiting for the previous one."""
        self.wait()
        self._saving = self._executor.submit(self._save, snapshot)

    def saved(self) -> int | None:
        """Step of the newest checkpoint that this process has written; None if storage does not answer."""
        step = self._saved
        if step is not None:
            with suppress(Exception):  # every file system has its own
                if (self._folder / checkpoint_name(step)).exists(STATE_FILE):
                    return step
        return None

    def wait(self) -> None:
        """Wait until the pending checkpoint is written or dropped."""
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def close(self, step: int) -> None:
        """Wait for the last checkpoint of a run, that of `step`.

        Raises:
            CheckpointNotSaved: if it could not be written.
        """
        self.wait()
        if not (self._folder / checkpoint_name(step)).exists(STATE_FILE):
            raise CheckpointNotSaved(
                f"the last checkpoint could not be written to {self._folder.uri}/{checkpoint_name(step)}; "
                "when storage works again, `dpt train --resume` continues from the previous one"
            )
        self._executor.shutdown()

    def _save(self, snapshot: Snapshot) -> None:
        name = checkpoint_name(snapshot.state.step)
        for pause in (0.0, *_PAUSES):
            time.sleep(pause)
            problem = _problem_of(partial(self._write, snapshot))
            if problem is None:
                break
        else:
            # An incomplete checkpoint is useless, and takes the space of the next one.
            _problem_of(partial(remove, self._folder / name))
            self._say(f"checkpoint {name} could not be written and is dropped: {problem}")
            return
        self._saved = snapshot.state.step
        problem = _problem_of(partial(self._prune, snapshot.state))
        if problem is not None:  # retried after the next checkpoint
            self._say(f"checkpoints before {name} cannot be removed: {problem}")

    def _write(self, snapshot: Snapshot) -> None:
        """Write all files, each atomically, and last the state that makes them a checkpoint."""
        folder = self._folder / checkpoint_name(snapshot.state.step)
        for name in (*snapshot.tensors, CONFIG):
            with folder.writing(name) as path:
                checkpoint.write_file(snapshot, name, path)
                snapshot.state.files[name] = checkpoint.digest_of(path)
        folder.write_text(STATE_FILE, checkpoint.state_text(snapshot.state))

    def _prune(self, state: TrainingState) -> None:
        """Remove all but the newest and the best, incomplete ones too.

        Steps after that of `state` are left alone: of an earlier attempt, whose checkpoints were found to be
        damaged, or of a process that has taken over the run.
        """
        scores = self._known_scores()
        scores[state.step] = state.score
        complete = sorted(step for step in scores if step <= state.step)
        kept = set(complete[-self._keep :])
        rated = {step: score for step in complete if (score := scores[step]) is not None and isfinite(score)}
        if rated:
            kept.add(min(rated, key=lambda step: (rated[step], step)))
        for step in {step for step in self.steps() if step <= state.step} - kept:
            remove(self._folder / checkpoint_name(step))
            scores.pop(step, None)

    def _known_scores(self) -> dict[int, float | None]:
        """Step → score of all complete checkpoints, read from storage once."""
        if self._scores is None:
            self._scores = {}
            for step in self.steps():
                folder = self._folder / checkpoint_name(step)
                if folder.exists(STATE_FILE):
                    self._scores[step] = None
                    with suppress(DamagedCheckpoint):
                        state = checkpoint.read_state(folder.read_bytes(STATE_FILE), folder.uri)
                        self._scores[step] = state.score
        return self._scores


def _problem_of(operation: Callable[[], None]) -> str | None:
    """Why an `operation` failed, if it did: no exception of storage may end a run for one checkpoint."""
    try:
        operation()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def remove(folder: Folder) -> None:
    """Remove the checkpoint in `folder`, its state first, so that a partial removal leaves no checkpoint."""
    if folder.exists(STATE_FILE):
        folder.fs.rm_file(folder.path_of(STATE_FILE))
    if folder.is_local:
        shutil.rmtree(folder.path, ignore_errors=True)
    else:
        folder.fs.rm(folder.path, recursive=True)
