"""The sample plan beside PyTorch's samplers: time per sample, time to resume late in a run, memory.

    python benchmarks/sampling.py

The plan has ten datasets with 1.4 million samples in row groups of 8; late is step 4,000,000 with batches of
16. `WeightedRandomSampler` draws a sample of a uniformly drawn dataset, as the paper does, but with
replacement. It and `RandomSampler` make lists of a whole pass; their late start only skips the beginning of
its pass, as if the random state of earlier passes had been kept. Memory is what Python and NumPy allocate for
a late start, without PyTorch's tensors (8 bytes per sample of a pass).
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from torch.utils.data import RandomSampler, WeightedRandomSampler

from pipelines.sampling.plan import SamplePlan, Sampling, Stage

SIZES = np.array([3_600, 20_378, 115_000, 130_000, 25_000, 200_000, 306_000, 100_000, 400_000, 100_022])
"""Samples of the datasets: some small, some large, 1.4 million together."""

BATCH, ROWS, BLOCK_STEPS = 16, 8, 8
LATE_STEP = 4_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000, help="samples drawn in bulk")
    arguments = parser.parse_args()
    print(f"{'':28} {'µs a sample':>12} {'start':>9} {'start late':>11} {'memory':>11}")
    samplings: tuple[Sampling, ...] = ("multinomial", "stratified")
    for sampling in samplings:
        show(sampling, *measure_plan(sampling, arguments.samples))
    weights = np.repeat(1 / SIZES, SIZES).tolist()
    for sampler in (RandomSampler(range(len(weights))), WeightedRandomSampler(weights, len(weights))):
        show(type(sampler).__name__, *measure_sampler(sampler.__iter__, arguments.samples))


def show(name: str, bulk: float, start: float, late: float, memory: float) -> None:
    print(f"{name:28} {1e6 * bulk:12.3f} {start:8.3f}s {late:10.3f}s {memory:7.1f} MiB", flush=True)


def measure_plan(sampling: Sampling, samples: int) -> tuple[float, float, float, float]:
    """Seconds per sample in bulk, seconds to the first block from step 0 and from a late one, peak MiB."""
    groups = [[ROWS] * int(-(-size // ROWS)) for size in SIZES]
    stages = [Stage(2 * LATE_STEP, None, sampling)]

    def first_block(step: int) -> None:
        plan = SamplePlan(groups, stages, BATCH, seed=0)
        plan.draws(np.arange(step * BATCH, (step + BLOCK_STEPS) * BATCH))

    start, late = timed(lambda: first_block(0)), timed(lambda: first_block(LATE_STEP))
    tracemalloc.start()
    first_block(LATE_STEP)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    plan = SamplePlan(groups, stages, BATCH, seed=0)
    return timed(lambda: plan.draws(np.arange(samples))) / samples, start, late, peak


def measure_sampler(make: Callable[[], Iterator[int]], samples: int) -> tuple[float, float, float, float]:
    """As `measure_plan`, for a sampler of PyTorch, whose passes are alike: a late start is inside one."""
    before = LATE_STEP * BATCH % int(SIZES.sum())
    start, late = timed(lambda: next(make())), timed(lambda: next(islice(make(), before, None)))
    tracemalloc.start()
    next(make())
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return timed(lambda: deque(islice(make(), samples), maxlen=0)) / samples, start, late, peak


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
