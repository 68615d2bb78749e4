import uuid
from pathlib import Path

import pytest
import torch

from datasets_prep.storage import Folder
from pipelines.checkpoint_store import CheckpointNotSaved, CheckpointStore
from pipelines.checkpoints import Snapshot, TrainingState


def snapshot(step: int, score: float | None = None) -> Snapshot:
    tensors = {name: {"x": torch.full((100,), float(step))} for name in ("weights.safetensors",)}
    return Snapshot(TrainingState(step, score=score), {"name": "test"}, tensors)


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run" if request.param == "local" else f"memory://{uuid.uuid4().hex}/run")


@pytest.fixture
def lines() -> list[str]:
    return []


def store_in(folder: Folder, lines: list[str], keep: int = 2) -> CheckpointStore:
    return CheckpointStore(folder, keep, lines.append)


def test_the_newest_checkpoint_is_found_again(folder: Folder, lines: list[str], tmp_path: Path) -> None:
    store = store_in(folder, lines)
    assert store.newest() is None
    for step in (10, 20):
        store.save(snapshot(step))
    store.close(20)
    state = store_in(folder, lines).newest()
    assert state is not None
    assert state.step == 20
    local = store.fetch(20, tmp_path)
    assert {path.name for path in local.iterdir()} == {"weights.safetensors", "config.json", "state.json"}
    assert lines == []


def test_the_newest_and_the_best_are_kept(folder: Folder, lines: list[str]) -> None:
    scores = {10: 0.5, 20: 0.2, 30: None, 40: 0.3, 50: 0.4}
    for step, score in scores.items():
        store = store_in(folder, lines)  # each from a process of its own: nothing is known from before
        store.save(snapshot(step, score))
        store.close(step)
    assert store_in(folder, lines).steps() == [20, 40, 50]


@pytest.mark.parametrize("damage", ["flip", "truncate", "no state"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_said_so(
    tmp_path: Path, lines: list[str], damage: str
) -> None:
    folder = Folder(tmp_path)
    store = store_in(folder, lines)
    for step in (10, 20):
        store.save(snapshot(step))
    store.wait()
    victim = tmp_path / "step_00000020" / ("state.json" if damage == "no state" else "weights.safetensors")
    content = bytearray(victim.read_bytes())
    if damage == "no state":
        victim.unlink()
    elif damage == "truncate":
        victim.write_bytes(content[:-7])
    else:
        content[-3] ^= 4
        victim.write_bytes(content)
    state = store_in(folder, lines).newest()
    assert state is not None
    assert state.step == 10
    assert len(lines) == 1
    assert f"step_00000020: {victim.name}" in lines[0]
    assert "going back to the one before" in lines[0]


class FailingStore(CheckpointStore):
    """Storage that refuses the first so many writes."""

    failures = 0

    def _write(self, snapshot: Snapshot) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        super()._write(snapshot)


@pytest.fixture
def failing(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> FailingStore:
    monkeypatch.setattr("pipelines.checkpoint_store._PAUSE_SECONDS", 0.001)
    return FailingStore(Folder(tmp_path), 3, lines.append)


def test_a_write_that_fails_is_tried_again(failing: FailingStore, lines: list[str]) -> None:
    failing.failures = 2
    failing.save(snapshot(10))
    failing.close(10)
    assert failing.steps() == [10]
    assert lines == []


def test_a_checkpoint_that_cannot_be_written_is_given_up_and_the_next_gets_its_turn(
    failing: FailingStore, lines: list[str]
) -> None:
    failing.failures = 3
    failing.save(snapshot(10))
    failing.save(snapshot(20))
    failing.close(20)
    assert failing.steps() == [20]
    assert lines == ["checkpoint step_00000010 is given up: OSError: [Errno 28] No space left on device"]


def test_the_last_checkpoint_has_to_be_written(failing: FailingStore) -> None:
    failing.failures = 3
    failing.save(snapshot(10))
    with pytest.raises(CheckpointNotSaved, match=r"last checkpoint could not be written to .*step_00000010"):
        failing.close(10)
    assert failing.newest() is None
