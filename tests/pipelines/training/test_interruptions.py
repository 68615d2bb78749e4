import os
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import ray
import torch
from ray.train import PreemptionInfo

from pipelines.training.board import open_board, showing, stopping_on_signals
from pipelines.training.interruptions import AGAIN_SECONDS, LOOK_SECONDS, Interruptions
from pipelines.training.ranks import Ranks
from tests.support.two_ranks import run_in_two_ranks

CPU = torch.device("cpu")


def alone(board: object, say: Callable[[str], None] = print) -> Interruptions:
    return Interruptions(board, Ranks(), CPU, say)


def test_the_drivers_wish_to_stop_is_heard(ray_session, monkeypatch):
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: None)
    board = open_board()
    watch = alone(board)
    assert watch.after_step() == (False, False)
    board.request_stop.remote()
    deadline = time.monotonic() + 60
    while not watch.after_step()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.heavy
def test_a_signal_is_answered_with_a_line_before_the_step_is_finished(monkeypatch):
    monkeypatch.setattr("pipelines.training.board.ray.get", lambda answer, **_: answer)
    asked, lines = [], list[str]()
    board = SimpleNamespace(request_stop=SimpleNamespace(remote=lambda: asked.append(len(lines)) or True))
    with stopping_on_signals(board, lines.append) as taken:
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 30
        while len(asked) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (taken, asked[:2]) == ([signal.SIGTERM], [1, 1])
    assert lines == ["stopping after this step, with a checkpoint; Ctrl-C again ends at once"]


@pytest.fixture
def without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interruptions, "_watch", lambda self: None)


def test_a_notice_is_answered_at_once_and_again_after_a_while(without_driver, monkeypatch):
    now, notice, lines = [100.0], [None], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: notice[0])
    watch = alone(None, lines.append)

    def saves_after(seconds: float) -> bool:
        now[0] += seconds
        return watch.after_step()[1]

    assert not saves_after(0)
    notice[0] = PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"a": [2, 3]})
    assert not saves_after(LOOK_SECONDS / 2)
    assert saves_after(LOOK_SECONDS / 2)
    assert lines == ["the node of rank 2, 3 is about to be preempted: saving a checkpoint"]
    assert not saves_after(LOOK_SECONDS)
    assert saves_after(AGAIN_SECONDS - LOOK_SECONDS)


def rank_of_two(rank: int) -> list[bool]:
    Interruptions._watch = lambda self: None
    ray.train.get_preemption_info = lambda: None
    watch = Interruptions(None, Ranks(rank, 2), CPU, print)
    # A reason of one rank's own, in its second step.
    return [watch.after_step(rank == 1 and step == 1)[0] for step in range(3)]


@pytest.mark.heavy
def test_ranks_stop_in_the_same_step(tmp_path):
    assert run_in_two_ranks(rank_of_two, tmp_path) == [[False, True, False]] * 2


def test_lines_come_to_the_driver_whose_machine_has_the_board(ray_session):
    lines: list[str] = []
    board = open_board()
    with showing(board, lines.append):
        for number in range(3):
            board.write.remote(f"line {number}")
    assert lines == ["line 0", "line 1", "line 2"]
    assert ray.get(board.failure.remote()) is None
    ray.get(board.fail.remote("no use"))
    assert ray.get(board.failure.remote()) == "no use"
