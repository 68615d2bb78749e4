"""Where a run's checkpoints are kept: saved in the background, thinned out, found again after a crash.

A run's folder, on any storage, has a folder a checkpoint, `step_00003600`. The training processes go on while
one is being written. Storage that fails does not stop them: the checkpoint is tried again, then given up, and
the next one gets its turn; only the last one of a run has to succeed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import isfinite
from pathlib import Path

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from dpt.weights.folder import CONFIG
from pipelines.training.checkpoint import (
    STATE_FILE,
    DamagedCheckpoint,
    Snapshot,
    TrainingState,
    digest_of,
    read_state,
    state_text,
    verify,
    write_file,
)

_STEP = re.compile(r"step_(\d{8,})")
_PAUSES = (1.0, 4.0)
"""Seconds to wait before writing a checkpoint again; remote storage is asked patiently each time."""


class CheckpointNotSaved(UserError):
    """A run's last checkpoint could not be written; the run can be resumed from the one before."""


def checkpoint_name(step: int) -> str:
    """Name of a checkpoint's folder."""
    return f"step_{step:08d}"


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: the run's folder.
        keep: how many of the newest are kept, besides the best one.
        say: called, from another thread, with a line about what went wrong.
    """

    def __init__(self, folder: Folder, keep: int, say: Callable[[str], None]) -> None:
        self._folder, self._keep, self._say = folder, keep, say
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None
        self._scores: dict[int, float | None] | None = None

    def steps(self) -> list[int]:
        """Steps of which there is a folder, whole or not, ascending."""
        matches = [_STEP.fullmatch(name) for name in self._folder.children()]
        return sorted(int(match[1]) for match in matches if match)

    def newest(self) -> TrainingState | None:
        """The newest checkpoint that is whole; says which ones are passed over, and why."""
        steps = self.steps()
        for step in reversed(steps):
            state = self._verified(step)
            if state is not None:
                return state
        if steps:
            self._say(f"no checkpoint in {self._folder.uri} is whole: starting anew")
        return None

    def _verified(self, step: int) -> TrainingState | None:
        try:
            with tempfile.TemporaryDirectory(prefix="dpt-checkpoint-") as scratch:
                return verify(self.fetch(step, Path(scratch)))
        except DamagedCheckpoint as error:
            self._say(f"checkpoint {error}: going back to the one before")
            return None

    def fetch(self, step: int, scratch: Path) -> Path:
        """A checkpoint as a local folder: where it lies, or copied into `scratch` from remote storage."""
        folder = self._folder / checkpoint_name(step)
        if folder.is_local:
            return Path(folder.path)
        target = scratch / checkpoint_name(step)
        target.mkdir()
        for name in folder.children():
            (target / name).write_bytes(folder.read_bytes(name))
        return target

    def save(self, snapshot: Snapshot) -> None:
        """Start writing a checkpoint; waits only for the one before, if that is still under way."""
        self.wait()
        self._saving = self._executor.submit(self._save, snapshot)

    def wait(self) -> None:
        """Wait until the checkpoint under way is written or given up."""
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def close(self, step: int) -> None:
        """Wait for the last checkpoint of a run.

        Raises:
            CheckpointNotSaved: if that of `step` is not there.
        """
        self.wait()
        if not (self._folder / checkpoint_name(step)).exists(STATE_FILE):
            raise CheckpointNotSaved(
                f"the last checkpoint could not be written to {self._folder.uri}/{checkpoint_name(step)}; "
                "when storage works again, `dpt train --resume` goes on from the one before"
            )
        self._executor.shutdown()

    def _save(self, snapshot: Snapshot) -> None:
        name = checkpoint_name(snapshot.state.step)
        write = partial(self._write, snapshot)
        problem = _problem_of(write)
        for pause in _PAUSES:
            if problem is None:
                break
            time.sleep(pause)
            problem = _problem_of(write)
        if problem is not None:
            # What is there of it is of no use, and takes the room of the next one.
            _problem_of(partial(remove, self._folder / name))
            self._say(f"checkpoint {name} is given up: {problem}")
            return
        problem = _problem_of(partial(self._thin_out, snapshot.state))
        if problem is not None:  # they are tried again after the next one
            self._say(f"checkpoints before {name} cannot be removed: {problem}")

    def _write(self, snapshot: Snapshot) -> None:
        """Write all files, each whole or not at all, and last the state that makes them a checkpoint."""
        folder = self._folder / checkpoint_name(snapshot.state.step)
        for name in (*snapshot.tensors, CONFIG):
            with folder.writing(name) as path:
                write_file(snapshot, name, path)
                snapshot.state.files[name] = digest_of(path)
        folder.write_text(STATE_FILE, state_text(snapshot.state))

    def _thin_out(self, state: TrainingState) -> None:
        """Remove all but the newest and the best: also what is not whole, or was passed over as damaged."""
        scores = self._known_scores()
        scores[state.step] = state.score
        whole = sorted(step for step in scores if step <= state.step)
        kept = set(whole[-self._keep :])
        rated = {step: score for step in whole if (score := scores[step]) is not None and isfinite(score)}
        if rated:
            kept.add(min(rated, key=lambda step: (rated[step], step)))
        for step in set(self.steps()) - kept:
            remove(self._folder / checkpoint_name(step))
            scores.pop(step, None)

    def _known_scores(self) -> dict[int, float | None]:
        if self._scores is None:
            self._scores = {}
            for step in self.steps():
                folder = self._folder / checkpoint_name(step)
                if folder.exists(STATE_FILE):
                    self._scores[step] = self._score(folder)
        return self._scores

    def _score(self, folder: Folder) -> float | None:
        try:
            return read_state(folder.read_text(STATE_FILE), folder.uri).score
        except DamagedCheckpoint:
            return None


def _problem_of(operation: Callable[[], None]) -> str | None:
    """Why an operation failed, for whatever storage raises, the run is worth more than one checkpoint."""
    try:
        operation()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def remove(folder: Folder) -> None:
    """Remove a checkpoint: first what makes it one, so that a half-removed one is none."""
    if folder.exists(STATE_FILE):
        folder.fs.rm_file(folder.path_of(STATE_FILE))
    if folder.is_local:
        shutil.rmtree(folder.path, ignore_errors=True)
    else:
        folder.fs.rm(folder.path, recursive=True)
