"""One row of what `torch.compile` gives, for `benchmarks/gpu.py`, which limits its time.

    python benchmarks/gpu_compiled.py MODEL average|regions|ours|transformers BATCH PEAK [--tiny]

Prints, with tabs between: milliseconds, images a second, share of PEAK (in FLOP/s), seconds of the first two
calls. `--tiny` traces on the CPU and compiles nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpu_bench import Bench
from gpu_inference import BFLOAT16, FORWARD, images_of, in_precision, ours, theirs
from gpu_training import AVERAGE, REGIONS, training_step


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("what", choices=(AVERAGE, REGIONS, "ours", "transformers"))
    parser.add_argument("batch", type=int)
    parser.add_argument("peak", type=float)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    bench = Bench(torch.device("cpu" if given.tiny else "cuda"), given.tiny, float("inf"))
    operations = bench.operations(given.model) / (1 if given.what in (AVERAGE, REGIONS) else FORWARD)
    call = compiled_call(bench, given.model, given.what, given.batch)
    start = time.perf_counter()
    for _ in range(2):
        call()
    compiling = time.perf_counter() - start
    seconds = bench.seconds(call)
    share = operations * given.batch / seconds / given.peak
    print(f"{1000 * seconds:.2f}\t{given.batch / seconds:.1f}\t{share:.1%}\t{compiling:.0f} s", flush=True)


def compiled_call(bench: Bench, name: str, what: str, count: int) -> Callable[[], object]:
    """A training step, averaged, as a whole or by regions, or a prediction by either implementation."""
    compiler = "eager" if bench.tiny else "inductor"
    if what in (AVERAGE, REGIONS):
        return training_step(bench, name, AVERAGE, count, compiler, regions=what == REGIONS)
    module = (ours if what == "ours" else theirs)(bench, name)
    predict, images = in_precision(bench, module, BFLOAT16, compiler), images_of(bench, count, BFLOAT16)

    def call() -> None:
        with torch.no_grad():
            predict(images)

    return call


if __name__ == "__main__":
    main()
