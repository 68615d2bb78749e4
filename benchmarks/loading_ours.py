"""Our contestants of the loading benchmark, each in its own process; `benchmarks/loading.py` runs them.

`limit` is the upper bound of any loader: the same number of plain processes, each decoding and cropping
samples from its memory into one buffer.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from loading_data import read_rows
from loading_timing import report

from datasets_prep.manifest import open_datasets
from pipelines.loading.batches import Batch
from pipelines.loading.blocks import LoaderSettings
from pipelines.loading.crops import RelativeDepthCrops, crop_and_flip
from pipelines.loading.rows import decode_row
from pipelines.sampling.plan import Stage

CROP, BATCH = 384, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("limit", "local", "ray"))
    parser.add_argument("shards", type=Path)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.name == "limit":
        rate, below = limit(arguments)
        print(json.dumps({"first": 0.0, "rate": rate, "memory": [], "here": 0.0, "below": below}))
        return
    if arguments.name == "ray":
        start_ray()
    report(
        ours(arguments.shards, arguments.processes, arguments.name),
        BATCH,
        arguments.warmup,
        arguments.samples,
        arguments.memory,
    )


def ours(shards: Path, processes: int, executor: Literal["local", "ray"]) -> Iterator[Batch]:
    # Imported here, because it imports Ray, which every loading process would do at its start.
    from pipelines.loading.batches import training_batches

    settings = LoaderSettings(
        uris=[dataset.folder.uri for dataset in open_datasets([str(shards)])],
        split="train",
        stages=[Stage(1_000_000)],
        seed=0,
        batch_size=BATCH,
        crops=RelativeDepthCrops((CROP, CROP), flip=True),
        start=0,
        rank=0,
        world_size=1,
    )
    yield from training_batches(settings, processes, executor)


def start_ray() -> None:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    import ray

    ray.init(_node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)


def limit(arguments: argparse.Namespace) -> tuple[float, float]:
    """Images per second of all processes together, and milliseconds of processor time per image."""
    share = arguments.samples // arguments.processes
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes) as pool:
        spent = pool.starmap(_bare, [(arguments.shards, share)] * arguments.processes, chunksize=1)
    seconds, processor = zip(*spent, strict=True)
    return sum(share / each for each in seconds), 1000 * sum(processor) / (share * len(processor))


def _bare(shards: Path, samples: int) -> tuple[float, float]:
    rows = list(read_rows(shards))
    draws = np.random.default_rng(0).random((samples, 3))
    image, inverse_depth = np.empty((CROP, CROP, 3), np.uint8), np.empty((CROP, CROP), np.float16)
    start, processor = time.perf_counter(), time.process_time()
    for number in range(samples):
        row = rows[number % len(rows)]
        crop_and_flip(*decode_row(row), draws[number], True, image, inverse_depth)
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main()
