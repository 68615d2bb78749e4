"""Time and memory of planning an ingest: listing files, finding samples, cutting shards.

    python benchmarks/listing.py                   # 1.4 million samples, 2.8 million files
    python benchmarks/listing.py --samples 20000   # only to see it run

The files are empty, in the layout of BlendedMVS, on the local disk. Target: less than 60 s and 1 GiB in all
on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.storage.folder import Folder, existing_folder
from datasets_prep.storage.listing_cache import cache_listing, cached_listing

DATASET = "blendedmvs"
VIEWS = 250
WANTED_SECONDS, WANTED_MIB = 60, 1024

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_400_000)
    parser.add_argument("--folder", help="where to make the files; a temporary folder by default")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="dpt-benchmark-", dir=arguments.folder) as scratch:
        raw, out = f"{scratch}/raw", Folder(f"{scratch}/out")
        write_files_elsewhere(Path(raw), arguments.samples)
        print(f"before: {peak_mib():.0f} MiB")
        listing, listing_seconds = timed(lambda: cached_listing(existing_folder(raw), out, refresh=False))
        print(f"{len(listing.files)} files listed: {listing_seconds:.1f} s, peak {peak_mib():.0f} MiB")
        cache_listing(listing.files, existing_folder(raw), out)
        plan, plan_seconds = timed(lambda: plan_ingest(DATASET, raw, IngestSettings(), listing.files))
        print(f"{plan.samples} samples planned: {plan_seconds:.1f} s, peak {peak_mib():.0f} MiB")
        total = listing_seconds + plan_seconds
        print(f"together: {total:.1f} s (under {WANTED_SECONDS} wanted), {peak_mib():.0f} MiB ({WANTED_MIB})")
        print(f"processor time of this process: {time.process_time():.1f} s")
        cached, seconds = timed(lambda: cached_listing(existing_folder(raw), out, refresh=False))
        print(f"{len(cached.files)} files from the cached listing: {seconds:.1f} s")


def write_files_elsewhere(raw: Path, samples: int) -> None:
    """In another process, whose time and memory are not measured."""
    process = multiprocessing.get_context("spawn").Process(target=write_files, args=(raw, samples))
    process.start()
    process.join()


def write_files(raw: Path, samples: int) -> None:
    """BlendedMVS's layout: a project of some hundred views in a folder."""
    for project in range(-(-samples // VIEWS)):
        folder = raw / f"{project:024x}"
        for name, pattern in (("blended_images", "{:08d}.jpg"), ("rendered_depth_maps", "{:08d}.pfm")):
            (folder / name).mkdir(parents=True)
            for view in range(min(VIEWS, samples - project * VIEWS)):
                os.close(os.open(folder / name / pattern.format(view), os.O_CREAT | os.O_WRONLY))


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
