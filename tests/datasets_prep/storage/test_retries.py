from collections.abc import Callable

import pytest

from datasets_prep.errors import UserError
from datasets_prep.storage import retries
from datasets_prep.storage.retries import PAUSES, StorageFailed, persistently


class NetworkError(Exception):
    """Of a client library: neither an OSError nor anything else that we know."""


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    """An operation that fails so many times before it answers, and the list of its calls."""
    calls: list[int] = []

    def operation(path: str) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "content"

    return operation, calls


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)
    return pauses


@pytest.mark.parametrize("error", [NetworkError("reset"), OSError(5, "Input/output error"), TimeoutError()])
def test_a_passing_failure_is_not_noticed(error, slept):
    operation, calls = failing(len(PAUSES), error)
    assert persistently("read", operation, "s3://bucket/x") == "content"
    assert len(calls) == len(PAUSES) + 1
    assert all(mean / 2 <= pause <= 1.5 * mean for pause, mean in zip(slept, PAUSES, strict=True))


def test_workers_do_not_return_all_at_once(slept):
    for _ in range(20):
        persistently("read", failing(1, NetworkError("slow down"))[0], "s3://bucket/x")
    assert len(set(slept)) == 20


def test_a_lasting_failure_names_the_file_and_the_cause(slept):
    operation, calls = failing(100, NetworkError("connection reset"))
    with pytest.raises(StorageFailed, match=r"^s3://b/x cannot be read, tried 5 times: NetworkError: conn"):
        persistently("read", operation, "s3://b/x")
    assert len(calls) == 5
    assert issubclass(StorageFailed, UserError)


@pytest.mark.parametrize("error", [FileNotFoundError("x"), PermissionError("x"), IsADirectoryError("x")])
def test_a_definite_answer_is_believed_at_once(error, slept):
    operation, calls = failing(100, error)
    with pytest.raises(type(error)):
        persistently("read", operation, "x")
    assert (len(calls), slept) == (1, [])
