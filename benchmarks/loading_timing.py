"""How fast batches come: the same clock for our executors and for every peer of the loading benchmark."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psutil


def report(batches: Iterator[Any], batch_size: int, warmup: int, samples: int, memory: bool = False) -> None:
    """Print as JSON: seconds to the first batch, images a second after the warm-up, memory if wanted.

    Args:
        batches: endless; made by a generator, so that its start is counted.
        warmup, samples: how many samples are taken before and while the clock runs.
        memory: also look at the memory of this process and all below it, fifty times.
    """
    start = time.perf_counter()
    next(batches)
    first = time.perf_counter() - start
    for _ in range(warmup // batch_size):
        next(batches)
    held: list[int] = []
    start = time.perf_counter()
    for number in range(samples // batch_size):
        next(batches)
        if memory and number % max(1, samples // batch_size // 50) == 0:
            held.append(resident())
    rate = samples // batch_size * batch_size / (time.perf_counter() - start)
    print(json.dumps({"first": first, "rate": rate, "memory": held}), flush=True)


def resident() -> int:
    """Bytes of this process and all below it; memory that some share is counted once."""
    process = psutil.Process()
    return sum(map(_share, [process, *process.children(recursive=True)]))


def _share(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended meanwhile
        return 0
