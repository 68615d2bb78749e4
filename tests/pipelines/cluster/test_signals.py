"""The first signal, later ones, and the end of a process that hangs while it unwinds."""

import signal
import subprocess
import sys
import time

import pytest

from pipelines.cluster import signals
from pipelines.training.board import ProgressBoard

HANGING = """
import os, signal, sys, time
from pipelines.cluster import signals
signals.PATIENCE = 1.0
signals.handle()
try:
    with signals.closing(lambda: print("closed", flush=True)):
        os.kill(os.getpid(), signal.SIGTERM)
finally:
    print("unwinding", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)
"""


LINE = "dpt: stopped by SIGTERM; what is finished is kept\n"
SWALLOWING = """
import os, signal, time
from pipelines.cluster import signals
signals.handle()
class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
try:
    Swallowing()
    time.sleep(600)
except signals.Stopped:
    print("raised")
"""


def test_what_is_raised_in_a_destructor_is_raised_again():
    ended = subprocess.run([sys.executable, "-c", SWALLOWING], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "raised\n", "")


@pytest.mark.heavy
def test_what_hangs_while_it_unwinds_is_ended_all_the_same():
    before = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + signal.SIGTERM, "unwinding\n", LINE)
    assert time.monotonic() - before < 60


@pytest.mark.heavy
def test_what_is_open_is_closed_where_nothing_unwinds():
    """SystemExit is kept from unwinding, as a library could."""
    program = HANGING.replace("os.kill(os.getpid(), signal.SIGTERM)", "hang()").replace(
        "try:", "def hang():\n    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n    finally:\n"
        "        time.sleep(600)\ntry:", 1
    )  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + signal.SIGTERM, "closed\n", LINE)


def test_the_first_signal_is_taken_and_what_follows_at_once_is_the_same(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    before = signal.getsignal(signal.SIGINT)

    def press_again() -> None:
        with signals.taking_the_first() as taken:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
            assert taken == [signal.SIGTERM]
            clock[0] += 2
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):  # Python's own handler was there before
        press_again()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_signal_that_the_parent_has_it_ignore_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals.taking_the_first() as taken:
            signal.raise_signal(signal.SIGHUP)
        assert taken == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_request_to_stop_counts_as_heard_once_a_rank_heeds_it():
    board = ProgressBoard()
    assert not board.stop_requested(heeds=True)
    assert not board.request_stop(), "heard before it was asked"
    assert board.stop_requested()
    assert not board.request_stop(), "a rank that validates"
    assert board.stop_requested(heeds=True)
    assert board.request_stop()


def test_a_request_to_stop_is_heard_until_the_last_trial_that_heeds_it_has_ended():
    board = ProgressBoard()
    board.request_stop()
    for trial in ("first", "second"):
        assert board.stop_requested(True, trial)
    assert board.stop_requested(False, "starting")
    board.stop_requested(False, "first")
    assert board.request_stop()
    board.stop_requested(False, "second")
    assert not board.request_stop()
