import threading

import numpy as np
import pytest

from pipelines.tracking import journal as metric_journal
from pipelines.tracking.journal import MetricJournal
from pipelines.tracking.runs import MetricPoint


class Server:
    """A tracking server that can be away, or take a request and fail to say so; stands in for a `Run`."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int, float]] = []
        self.pictures: list[str] = []
        self.failures: list[str] = []
        self.asked = threading.Event()
        self.away = False

    def log_points(self, points: list[MetricPoint]) -> None:
        self.asked.set()
        if self.away:
            raise ConnectionError("refused")
        how = self.failures.pop(0) if self.failures else ""
        if how == "before":
            raise ConnectionError("reset")
        self.points += [(point.name, point.step, point.value) for point in points]
        if how == "after":
            raise TimeoutError("no answer")

    def log_picture(self, picture: np.ndarray, path: str) -> None:
        if path == "refused":
            raise PermissionError("no artifacts for you")
        self.pictures.append(path)

    def logged_steps(self, name: str) -> set[int]:
        if self.away:
            raise ConnectionError("refused")
        return {step for known, step, _ in self.points if known == name}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_journal, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(metric_journal, "_LONGEST_PAUSE", 0.01)


@pytest.fixture
def server() -> Server:
    return Server()


def log_steps(journal: MetricJournal, first: int, last: int) -> None:
    for step in range(first, last + 1):
        journal.log({"loss": step / 10, "rate": 5.0}, step)


def expected(first: int, last: int) -> list[tuple[str, int, float]]:
    return [(name, s, v) for s in range(first, last + 1) for name, v in (("loss", s / 10), ("rate", 5.0))]


@pytest.mark.parametrize(("known", "failures", "first", "last"), [
    (0, [], 1, 50), (0, ["after", "before", "after"], 1, 20), (7, [], 5, 10),
], ids=["plain", "a request that failed after it arrived", "steps that a resumed run repeats"])  # fmt: skip
def test_metrics_arrive_once_in_order(server, known, failures, first, last):
    server.points, server.failures = expected(1, known), failures
    journal = MetricJournal(server, [], print)
    log_steps(journal, first, last)
    assert journal.close(60) == []
    assert server.points == expected(1, last)


def test_a_server_that_is_away_gets_them_later(server):
    lines: list[str] = []
    server.away = True
    journal = MetricJournal(server, [], lines.append)
    log_steps(journal, 1, 3)
    while not lines:
        pass
    assert [point[3] for point in journal.unsent()] == [1, 1, 2, 2, 3, 3]
    server.away = False
    assert journal.close(60) == []
    assert server.points == expected(1, 3)
    assert lines == [
        "MLflow takes no metrics (ConnectionError); they are kept and sent later",
        "MLflow takes metrics again",
    ]


def test_what_could_not_be_sent_travels_in_the_checkpoint(server):
    server.away = True
    first = MetricJournal(server, [], print)
    log_steps(first, 1, 2)
    left = first.close(0.1)
    assert len(left) == 4
    server.away = False
    second = MetricJournal(server, left, print)
    log_steps(second, 3, 3)
    assert second.close(60) == []
    # The first journal's thread is still trying, as a process that lives on would; nothing doubles.
    assert sorted(server.points) == sorted(expected(1, 3))


def test_pictures_follow_the_metrics_and_none_holds_them_up(server):
    lines: list[str] = []
    server.away = True
    journal = MetricJournal(server, [], lines.append)
    log_steps(journal, 1, 1)
    for path in (*map(str, range(20)), "refused", "last"):
        journal.log_picture(np.zeros((2, 2, 3), np.uint8), path)
    server.away = False
    assert journal.close(60) == []
    assert (server.points, server.pictures) == (expected(1, 1), ["14", "15", "16", "17", "18", "19", "last"])
    assert lines[-1] == "MLflow takes no refused: PermissionError"
