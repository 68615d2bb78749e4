"""Rate of batches, processor time and memory, measured alike for our executors and for every peer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psutil


def report(batches: Iterator[Any], batch_size: int, warmup: int, samples: int, memory: bool = False) -> None:
    """Print as JSON: seconds to the first batch; after the warm-up images per second, and milliseconds of
    processor time per image in this process and in its descendants; their memory if requested.

    Args:
        batches: endless; a generator, so that its start is included.
        batch_size: samples of a batch.
        warmup: samples before the clock starts.
        samples: samples while the clock runs.
        memory: also measure the memory of this process and its descendants, fifty times.
    """
    start = time.perf_counter()
    next(batches)
    first = time.perf_counter() - start
    for _ in range(warmup // batch_size):
        next(batches)
    held: list[int] = []
    before = processor_seconds()
    start = time.perf_counter()
    for number in range(samples // batch_size):
        next(batches)
        if memory and number % max(1, samples // batch_size // 50) == 0:
            held.append(resident())
    seconds, taken = time.perf_counter() - start, samples // batch_size * batch_size
    spent = [1000 * (after - early) / taken for early, after in zip(before, processor_seconds(), strict=True)]
    result = {"first": first, "rate": taken / seconds, "memory": held, "here": spent[0], "below": spent[1]}
    print(json.dumps(result), flush=True)


def processor_seconds() -> tuple[float, float]:
    """Processor seconds of this process, and of its descendants, ended ones included."""
    process = psutil.Process()
    times = [each for each in map(_times, [process, *process.children(recursive=True)]) if each]
    return times[0].user + times[0].system, sum(
        each.user + each.system + each.children_user + each.children_system for each in times[1:]
    )


def _times(process: psutil.Process) -> Any:
    try:
        return process.cpu_times()
    except psutil.NoSuchProcess:  # it has ended, and its parent has its times
        return None


def resident() -> int:
    """Bytes of this process and its descendants; shared memory is counted once."""
    process = psutil.Process()
    return sum(map(_share, [process, *process.children(recursive=True)]))


def _share(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended
        return 0
