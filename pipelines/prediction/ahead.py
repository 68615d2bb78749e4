"""Work that threads do ahead of its turn. Decoding and encoding leave Python's lock to the others."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(16, os.cpu_count() or 1)


@contextmanager
def threads(count: int = THREADS) -> Iterator[ThreadPoolExecutor]:
    """`count` threads; at the end of the block, what they have not begun is dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """The results of `work` on all `items`, in their order and as soon as they are there.

    The threads of the `pool` are at most `ahead` items ahead of what is taken. An exception of `work` is
    raised in the turn of its item.
    """
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        while begun and (len(begun) > ahead or begun[0].done()):
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
