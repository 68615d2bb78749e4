"""Threads that work ahead: results in order, as soon as they are there, and never too far ahead."""

import threading
import time

import pytest

from pipelines.prediction.ahead import in_order, threads


def test_results_come_in_order_whichever_is_ready_first():
    def slow_if_even(number: int) -> int:
        time.sleep(0.02 * (number % 2 == 0))
        return number * number

    with threads() as pool:
        assert list(in_order(pool, slow_if_even, range(9), ahead=4)) == [n * n for n in range(9)]
        assert list(in_order(pool, slow_if_even, [], ahead=4)) == []


def test_no_more_are_begun_than_asked_for():
    taken: list[int] = []
    with threads() as pool:
        results = in_order(pool, lambda number: number, (taken.append(n) or n for n in range(50)), ahead=3)
        for done, _ in enumerate(results):
            assert len(taken) <= done + 4


def test_a_result_does_not_wait_for_later_items():
    """The first is there before the second item is asked for a third time."""
    released = threading.Event()

    def items():
        yield 0
        time.sleep(0.05)  # the source is slow, the first is done meanwhile
        yield 1
        released.set()
        yield 2

    with threads() as pool:
        results = in_order(pool, lambda number: number, items(), ahead=10)
        assert next(results) == 0
        assert not released.is_set()
        assert list(results) == [1, 2]


def test_an_exception_comes_in_its_turn_and_ends_the_rest():
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        if number == 2:
            raise ValueError("the third")
        return number

    with threads() as pool:
        results = in_order(pool, work, range(1000), ahead=5)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="the third"):
            next(results)
    assert len(begun) < 20
