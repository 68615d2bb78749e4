"""The judge of the fuzz suite can tell every kind of failure."""

import mmap
import os
import signal
from collections.abc import Iterator

import pytest

from datasets_prep.errors import BadSample, WrongLayout
from tests.fuzz.watched_worker import Limits, WatchedWorker


def returns() -> None:
    pass


def refuses(error: type[Exception], reason: str) -> None:
    raise error(reason)


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def exits() -> None:
    os._exit(3)


def never_ends() -> None:
    while True:
        pass


def takes(megabytes: int) -> None:
    memory = mmap.mmap(-1, megabytes * 2**20)
    for page in range(0, len(memory), mmap.PAGESIZE):
        memory[page] = 1


@pytest.fixture(scope="module")
def worker() -> Iterator[WatchedWorker]:
    with WatchedWorker(Limits(cpu_seconds=2, memory_bytes=400 * 2**20)) as worker:
        yield worker


def test_a_result_is_read(worker):
    outcome = worker.call(returns)
    assert outcome.verdict == "read"
    assert 0 < outcome.peak_bytes < 400 * 2**20


@pytest.mark.parametrize("error", [BadSample, WrongLayout])
def test_a_refusal_with_a_reason_is_good(worker, error):
    outcome = worker.call(refuses, error, "depth PFM truncated")
    assert (outcome.verdict, outcome.reason) == ("refused", "depth PFM truncated")


@pytest.mark.parametrize("reason", ["", "two\nlines", "x" * 2000, "Insufficient memory", "std::bad_alloc"])
def test_a_refusal_without_a_good_reason_is_a_failure(worker, reason):
    assert worker.call(refuses, BadSample, reason).verdict == "failed"


@pytest.mark.parametrize("error", [ValueError, KeyError, MemoryError, SystemExit, KeyboardInterrupt])
def test_any_other_error_is_a_failure(worker, error):
    outcome = worker.call(refuses, error, "something")
    assert outcome.verdict == "failed"
    assert error.__name__ in outcome.reason


@pytest.mark.parametrize(
    ("function", "reason"), [(crashes, "crashed: SIGSEGV"), (exits, "crashed: exit status 3")]
)
def test_a_crash_is_a_failure_and_the_next_call_has_a_new_process(worker, function, reason):
    outcome = worker.call(function)
    assert outcome.verdict == "failed"
    assert outcome.reason.startswith(reason)
    assert worker.call(returns).verdict == "read"


@pytest.mark.heavy
def test_an_endless_loop_is_a_failure(worker):
    outcome = worker.call(never_ends)
    assert outcome.verdict == "failed"
    assert outcome.reason.startswith("hung: ")


@pytest.mark.heavy
def test_too_much_memory_is_a_failure_of_that_call_alone(worker):
    outcome = worker.call(takes, 450)
    assert outcome.verdict == "failed"
    assert "GiB of memory" in outcome.reason
    assert worker.call(takes, 50).verdict == "read"
    assert "MemoryError" in worker.call(takes, 5000).reason or "OSError" in worker.call(takes, 5000).reason
