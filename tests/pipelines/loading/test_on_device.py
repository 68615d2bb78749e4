import threading
import weakref

import pytest
import torch

from pipelines.loading.on_device import on_device, one_ahead
from tests.support.models import batch_of


class Item:
    """Something that can be watched."""

    def __init__(self, number):
        self.number = number


def test_items_come_in_order_one_ahead_and_from_one_other_thread():
    started, threads = [], set()
    asked = [threading.Event() for _ in range(5)]

    def items():
        for number in range(5):
            started.append(number)
            threads.add(threading.current_thread())
            asked[number].set()
            yield number

    for number, found in enumerate(one_ahead(items(), lambda number: number * 10)):
        assert found == number * 10
        if number < 4:
            assert asked[number + 1].wait(10)
        assert started == list(range(min(number + 2, 5)))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_an_error_is_raised_where_its_item_would_be():
    def items():
        yield 1
        raise ValueError("damaged")

    found = one_ahead(items(), str)
    assert next(found) == "1"
    with pytest.raises(ValueError, match="damaged"):
        next(found)
    with pytest.raises(ZeroDivisionError):
        list(one_ahead(iter([0]), lambda number: 1 / number))


def test_items_are_let_go_when_staged_and_results_when_read():
    items, results = [], []

    def source():
        for number in range(4):
            item = Item(number)
            items.append(weakref.ref(item))
            yield item
            del item

    def stage(item):
        result = Item(item.number)
        results.append(weakref.ref(result))
        return result

    for result in one_ahead(source(), stage):
        number = result.number
        del result
        # The thread may hold the next item, and what it made of it.
        assert all(item() is None for item in items[:number])
        assert all(made() is None for made in results[:number])


def test_a_reader_may_stop_early():
    closed = threading.Event()

    def items():
        try:
            yield from range(1000)
        finally:
            closed.set()

    source = items()
    found = one_ahead(source, str)
    assert next(found) == "0"
    found.close()
    source.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_on_a_cpu_batches_stay_what_they_are():
    batch = batch_of(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, 4, 4), [0, 1], slice(0, 2))
    assert next(on_device(iter([batch]), torch.device("cpu"))) is batch
