import uuid
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from datasets_prep.storage.folder import Folder
from pipelines.training.checkpoint import Snapshot, TrainingState
from pipelines.training.checkpoint_store import CheckpointNotSaved, CheckpointStore, checkpoint_name


def snapshot(step: int, score: float | None = None) -> Snapshot:
    tensors = {"weights.safetensors": {"x": torch.full((100,), float(step))}}
    return Snapshot(TrainingState(step, score=score), {"name": "test"}, tensors)


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run" if request.param == "local" else f"memory://{uuid.uuid4().hex}/run")


@pytest.fixture
def lines() -> list[str]:
    return []


def store_in(folder: Folder, lines: list[str], keep: int = 2, steps: Sequence[int] = ()) -> CheckpointStore:
    """A store into which checkpoints of these steps were written."""
    store = CheckpointStore(folder, keep, lines.append)
    for step in steps:
        store.save(snapshot(step))
        store.wait()
    return store


def test_the_newest_checkpoint_is_found_again(folder, lines, tmp_path):
    assert store_in(folder, lines).newest() is None
    store = store_in(folder, lines, steps=(10, 20))
    store.close(20)
    assert store_in(folder, lines).newest().step == 20
    local = store.fetch(20, tmp_path)
    assert {path.name for path in local.iterdir()} == {"weights.safetensors", "config.json", "state.json"}
    assert lines == []


def test_the_newest_and_the_best_are_kept(folder, lines):
    scores = {10: 0.5, 20: 0.2, 30: None, 40: 0.3, 50: 0.4}
    for step, score in scores.items():
        store = store_in(folder, lines)  # each from a process of its own: nothing is known from before
        store.save(snapshot(step, score))
        store.close(step)
    assert store_in(folder, lines).steps() == [20, 40, 50]


@pytest.mark.parametrize("damage", ["flip", "truncate", "no state"])
def test_a_damaged_newest_checkpoint_is_skipped_and_reported(tmp_path, lines, damage):
    folder = Folder(tmp_path)
    store_in(folder, lines, steps=(10, 20))
    victim = tmp_path / "step_00000020" / ("state.json" if damage == "no state" else "weights.safetensors")
    content = bytearray(victim.read_bytes())
    if damage == "no state":
        victim.unlink()
    elif damage == "truncate":
        victim.write_bytes(content[:-7])
    else:
        content[-3] ^= 4
        victim.write_bytes(content)
    assert store_in(folder, lines).newest().step == 10
    (line,) = lines
    assert f"step_00000020: {victim.name}" in line
    assert "falling back to the previous one" in line


class FailingStore(CheckpointStore):
    """Storage that is full after the first file, for the first `failures` writes."""

    failures = 0

    def _write(self, snapshot: Snapshot) -> None:
        if self.failures > 0:
            self.failures -= 1
            (self._folder / checkpoint_name(snapshot.state.step)).write_text("weights.safetensors", "half")
            raise OSError(28, "No space left on device")
        super()._write(snapshot)


@pytest.fixture
def failing(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> FailingStore:
    monkeypatch.setattr("pipelines.training.checkpoint_store._PAUSES", (0.001, 0.001))
    return FailingStore(Folder(tmp_path), 3, lines.append)


def test_a_write_that_fails_is_tried_again(failing, lines):
    failing.failures = 2
    failing.save(snapshot(10))
    failing.close(10)
    assert failing.steps() == [10]
    assert lines == []


def test_a_checkpoint_that_cannot_be_written_is_dropped_and_the_next_one_saved(failing, lines):
    failing.failures = 3
    failing.save(snapshot(10))
    failing.save(snapshot(20))
    failing.close(20)
    assert failing.steps() == [20]
    dropped = "checkpoint step_00000010 could not be written and is dropped"
    assert lines == [f"{dropped}: OSError: [Errno 28] No space left on device"]


def test_the_last_checkpoint_has_to_be_written(failing):
    failing.failures = 3
    failing.save(snapshot(10))
    with pytest.raises(CheckpointNotSaved, match=r"last checkpoint could not be written to .*step_00000010"):
        failing.close(10)
    assert failing.newest() is None


def test_a_dropped_checkpoint_leaves_no_file_behind(failing, tmp_path):
    failing.failures = 3
    failing.save(snapshot(10))
    failing.wait()
    assert list(tmp_path.iterdir()) == []


def test_later_steps_are_left_alone_and_not_counted_as_the_newest(tmp_path, lines):
    store_in(Folder(tmp_path), lines, steps=(10, 20, 30)).close(30)
    (tmp_path / "step_00000015").mkdir()  # killed while it was written
    for step in (20, 30):
        (tmp_path / f"step_{step:08d}" / "weights.safetensors").write_bytes(b"damaged")
    resumed = store_in(Folder(tmp_path), lines, keep=1)
    assert resumed.newest() is None
    assert "is intact: starting from scratch" in lines[-1]
    resumed.save(snapshot(12))
    resumed.close(12)
    assert resumed.steps() == [12, 15, 20, 30]
    assert store_in(Folder(tmp_path), lines).newest().step == 12
    other = store_in(Folder(tmp_path), lines, keep=1)
    other.save(snapshot(16))
    other.close(16)
    assert other.steps() == [16, 20, 30]


def test_old_checkpoints_that_stay_are_removed_after_the_next_one(tmp_path, lines, monkeypatch):
    store = store_in(Folder(tmp_path), lines, keep=1, steps=(10,))
    with monkeypatch.context() as patch:
        refuse = Mock(side_effect=PermissionError("not yours"))
        patch.setattr("pipelines.training.checkpoint_store.remove", refuse)
        store.save(snapshot(20))
        store.wait()
    assert lines == ["checkpoints before step_00000020 cannot be removed: PermissionError: not yours"]
    assert store.steps() == [10, 20]
    store.save(snapshot(30))
    store.close(30)
    assert store.steps() == [30]


def test_a_score_that_is_no_number_is_not_the_best(folder, lines):
    store = store_in(folder, lines, keep=1)
    for step, score in ((10, float("nan")), (20, 0.3), (30, 0.4)):
        store.save(snapshot(step, score))
        store.wait()
    assert store.steps() == [20, 30]
