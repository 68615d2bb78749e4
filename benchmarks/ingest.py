"""Speed of `dpt prepare` beside its limit: the same decode, resize and encode calls in bare processes.

    python benchmarks/ingest.py                          # 6,000 images, counted from the 2,000th on
    python benchmarks/ingest.py --images 400 --skip 100  # only to see it run

The images are frames of TartanAir's format, 640 by 480, of which a few are rendered and the rest are links to
them. The limit is measured before and after, by as many processes as Ray has cores, and averaged: a busy
machine slows all three. Ray's start is reported separately and not part of the rate.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import ray

from datasets_prep.ingest.row import pixel_columns
from datasets_prep.ingest.run import ingest
from datasets_prep.plan.shards import IngestPlan, ShardPlan, open_source, plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import write_dataset

DATASET = "tartanair"
HEIGHT, WIDTH = 480, 640
SCENES = 4
TARGET = 0.85


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--skip", type=int, default=2000, help="images before the steady state")
    parser.add_argument("--samples-per-shard", type=int, default=256)
    parser.add_argument("--limit-images", type=int, default=400, help="per process, for the limit")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="dpt-benchmark-") as scratch:
        raw = Path(scratch) / "raw"
        write_images(raw, arguments.images)
        settings = IngestSettings(samples_per_shard=arguments.samples_per_shard)
        plan = plan_ingest(DATASET, str(raw), settings)
        before = limit(plan, arguments.cores, arguments.limit_images)
        rate = steady_rate(plan, f"{scratch}/out", arguments.cores, arguments.skip)
        after = limit(plan, arguments.cores, arguments.limit_images)
    bound = (before + after) / 2
    print(
        f"limit: {bound:.1f} images/s ({before:.1f} before, {after:.1f} after), {arguments.cores} processes"
    )
    print(f"dpt prepare: {rate:.1f} images/s, {rate / bound:.2f} of the limit (at least {TARGET} wanted)")


def write_images(raw: Path, count: int) -> None:
    """Render a few trajectories and link to them under other environments' names."""
    first = raw.parent / "rendered"
    write_dataset(DATASET, first, SCENES, height=HEIGHT, width=WIDTH)
    files = sorted(path for path in first.rglob("*") if path.is_file())
    frames = sum(path.name.endswith("_depth.npy") for path in files)
    for copy in range(-(-count // frames)):
        for path in files:
            parts = path.relative_to(first).parts
            # Some archives have the environment's folder twice.
            renamed = (f"{part}x{copy:05d}" if part == parts[0] else part for part in parts)
            target = raw / Path(*renamed)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)


def steady_rate(plan: IngestPlan, out: str, cores: int, skip: int) -> float:
    """Images per second from the `skip`-th on."""
    start = time.perf_counter()
    ray.init(num_cpus=cores, logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    print(f"Ray's start: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    done = [(time.perf_counter(), state.done) for state in ingest(plan, out)]
    ray.shutdown()
    steady = [(moment, count) for moment, count in done if count >= skip]
    print(f"first shard: {done[0][0] - start:.1f} s after the job's start")
    print(f"all {done[-1][1]} images: {done[-1][1] / (done[-1][0] - start):.1f} images/s")
    return (steady[-1][1] - steady[0][1]) / (steady[-1][0] - steady[0][0])


def limit(plan: IngestPlan, cores: int, images: int) -> float:
    """Images per second of bare loops in `cores` processes, that read, decode, resize and encode."""
    shards = [plan.shards[i % len(plan.shards)] for i in range(cores)]
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        work = [(plan.source, plan.raw, plan.settings, shard, images) for shard in shards]
        pool.starmap(bare_loop, [(*job[:4], 4) for job in work], chunksize=1)  # imports
        rates, peaks = zip(*pool.starmap(bare_loop, work, chunksize=1), strict=True)
    print(f"peak of a bare process: {max(peaks):.0f} MiB")
    return sum(rates)


def bare_loop(
    source_name: str, raw: str, settings: IngestSettings, shard: ShardPlan, images: int
) -> tuple[float, float]:
    """Images per second, and the process's peak memory in MiB."""
    cv2.setNumThreads(1)
    source, root = open_source(source_name, raw, settings), Folder(raw)
    samples = (shard.samples * (images // shard.count + 1))[:images]
    start = time.perf_counter()
    for sample in samples:
        pixel_columns(source.read(root, sample), source, shard.split, settings)
    seconds = time.perf_counter() - start
    return images / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
