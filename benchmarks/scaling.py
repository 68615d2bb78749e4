"""What training requires of a cluster: measured constants, scaling of data loading, and the budget of a run.

    python benchmarks/scaling.py                        # everything; some minutes on an idle machine
    python benchmarks/scaling.py --gpus 64 --batch-per-gpu 16 --step-seconds 0.25 --dollars 3

Three parts, each printed as a table; `docs/scaling.md` explains them.

* Loading, measured: one rank on each of 1, 2 and 4 nodes of a local Ray cluster, loading its own share of the
  shards. Nodes share cores, so the measure is work: CPU seconds and bytes read per image. Efficiency is CPU
  time per image on one node over that on N nodes; 100 % is linear scaling.
* Loading, counted: the reads per rank of many, computed from the sample plan without reading.
* The budget: bytes, requests, cores, memory, checkpoints, hours and dollars of a run, from these constants.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import ray
import torch
from loading_data import make_shards
from ray.cluster_utils import Cluster
from torch.utils.flop_counter import FlopCounterMode

import dpt
from datasets_prep.manifest import open_datasets
from datasets_prep.schema import ROW_GROUP_ROWS
from pipelines.loading.batches import LoaderSettings, training_batches
from pipelines.loading.crops import RelativeDepthCrops
from pipelines.loading.on_ray import TASK_BLOCKS
from pipelines.sampling.plan import SamplePlan, Stage

CROP = 384
CROPS = RelativeDepthCrops((CROP, CROP), flip=True)
MIX_DATASETS = 10
STEPS_OF_THE_PAPER, BATCH_OF_THE_PAPER = 60 * 72_000, 16
ENDLESS = [Stage(1 << 40)]
STORE_BLOCKS = 4 * TASK_BLOCKS + 2
"""Blocks per rank in the object store with the `ray` executor: those of four tasks, and two prefetched."""


@dataclass(frozen=True)
class Loaded:
    """Cost of loading one rank's images.

    Attributes:
        images: number of images.
        cpu_seconds: of the process.
        bytes_read: from storage.
        seconds: wall time.
    """

    images: int
    cpu_seconds: float
    bytes_read: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dpt-scaling")
    parser.add_argument("--rows", type=int, default=160, help="rendered samples per dataset, of ten")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--images-per-rank", type=int, default=4096, help="loaded in each measurement")
    parser.add_argument("--images", type=float, default=1.4e6, help="in the real datasets")
    parser.add_argument("--model", default="dpt_large")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--batch-per-gpu", type=int, default=16)
    parser.add_argument("--peak-tflops", type=float, default=989, help="bfloat16 per GPU, as specified")
    parser.add_argument("--utilisation", type=float, default=0.25, help="share of the peak in training")
    parser.add_argument("--step-seconds", type=float, help="measured; replaces the two above")
    parser.add_argument("--dollars", type=float, default=4.0, help="per GPU and hour")
    parser.add_argument("--checkpoint-every", type=int, default=3600, help="steps")
    arguments = parser.parse_args()
    shards = make_shards(arguments.folder, arguments.rows)
    bytes_per_image = stored_bytes(shards)
    cpu_seconds = measure_loading(shards, arguments)
    reads = count_reads(arguments)
    print_budget(arguments, bytes_per_image, cpu_seconds, reads)


# ---- loading, measured


def measure_loading(shards: Path, arguments: argparse.Namespace) -> float:
    """Print the table; returns CPU seconds per image on one node."""
    print(
        f"{'nodes':>6} {'images':>8} {'CPU ms/image':>13} {'efficiency':>11} "
        f"{'MB read/image':>14} {'images/s':>9}"
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(max(arguments.nodes)):
        cluster.add_node(num_cpus=1, resources={"rank": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    one = None
    for nodes in arguments.nodes:
        parts = load_on(nodes, shards, arguments.images_per_rank)
        images = sum(part.images for part in parts)
        work = sum(part.cpu_seconds for part in parts) / images
        one = one or work
        read = sum(part.bytes_read for part in parts) / images
        rate = images / max(part.seconds for part in parts)
        print(
            f"{nodes:6} {images:8,} {1000 * work:13.2f} {one / work:11.0%} {read / 1e6:14.2f} {rate:9.0f}",
            flush=True,
        )
    ray.shutdown()
    cluster.shutdown()
    assert one is not None
    return one


def load_on(nodes: int, shards: Path, images: int) -> list[Loaded]:
    """Load `images` images of `shards` on each of N `nodes` at once."""
    uris = [dataset.folder.uri for dataset in open_datasets([str(shards)])]
    batch = 16 * nodes
    settings = [
        LoaderSettings(uris, "train", [Stage(images // 16)], 0, batch, CROPS, 0, rank, nodes)
        for rank in range(nodes)
    ]
    return ray.get([load.remote(one) for one in settings])


@ray.remote(num_cpus=1, resources={"rank": 1})
def load(settings: LoaderSettings) -> Loaded:
    """Load one rank's images in this process, with its `settings`, and measure the cost."""
    torch.set_num_threads(1)
    process = psutil.Process()
    # The first block opens files and imports codecs.
    batches = training_batches(settings, 0)
    next(batches)
    before, cpu, start = process.io_counters().read_chars, time.process_time(), time.perf_counter()
    images = sum(len(batch.images) for batch in batches)
    return Loaded(
        images,
        time.process_time() - cpu,
        process.io_counters().read_chars - before,
        time.perf_counter() - start,
    )


# ---- loading, counted


def count_reads(arguments: argparse.Namespace) -> float:
    """Print how many rows of a row group each read of it serves; returns reads per image at full size."""
    groups = int(arguments.images / MIX_DATASETS / ROW_GROUP_ROWS)
    row_groups = [[ROW_GROUP_ROWS] * groups] * MIX_DATASETS
    print(f"\n{'ranks':>6} {'global batch':>13} {'reads/image':>12} {'rows used of 8':>15}")
    reads = 1.0
    for ranks in sorted({1, 2, 4, arguments.gpus_per_node, arguments.gpus}):
        batch = ranks * arguments.batch_per_gpu
        reads = reads_per_image(row_groups, ranks, batch)
        print(f"{ranks:6} {batch:13} {reads:12.3f} {1 / reads:15.1f}")
    return reads


def reads_per_image(row_groups: Sequence[Sequence[int]], ranks: int, batch: int, blocks: int = 4) -> float:
    """Row groups read per image: by the first ranks, each for `blocks` blocks of its batches.

    Args:
        row_groups: dataset → rows of each row group.
        ranks: number of ranks.
        batch: global batch size.
        blocks: number of blocks per rank.
    """
    plan = SamplePlan(row_groups, ENDLESS, batch, seed=0)
    reads = images = 0
    for rank in range(min(ranks, 8)):
        settings = endless_settings(rank, ranks, batch)
        length = settings.steps_per_block
        for block in range(blocks):
            steps = np.arange(block * length, (block + 1) * length)
            draws = plan.draws((steps[:, None] * batch + np.arange(*settings.slice)).ravel())
            reads += len(np.unique(np.stack([draws.dataset, draws.row_group]), axis=1).T)
            images += len(draws.row)
    return reads / images


def endless_settings(rank: int, ranks: int, batch: int) -> LoaderSettings:
    """Loader settings of a rank, without data to read."""
    return LoaderSettings([], "train", ENDLESS, 0, batch, CROPS, 0, rank, ranks)


# ---- the budget


def print_budget(arguments: argparse.Namespace, stored: float, cpu_seconds: float, reads: float) -> None:
    """Print the requirements of a run."""
    parameters, flops = model_size(arguments.model)
    samples = STEPS_OF_THE_PAPER * BATCH_OF_THE_PAPER
    batch = arguments.gpus * arguments.batch_per_gpu
    steps = samples / batch
    step_flops = 3 * flops * arguments.batch_per_gpu
    step_seconds = arguments.step_seconds or step_flops / (
        arguments.peak_tflops * 1e12 * arguments.utilisation
    )
    rate = batch / step_seconds
    group = stored * ROW_GROUP_ROWS
    hours = steps * step_seconds / 3600
    checkpoint = 4 * parameters * 3
    block = 5 * CROP**2 * max(endless_settings(0, 1, 16).block_samples, arguments.batch_per_gpu)
    minutes = arguments.checkpoint_every * step_seconds / 60
    lines = {
        "stored data": f"{arguments.images * stored / 1e9:,.0f} GB ({stored / 1e3:.0f} kB/image)",
        "samples of the run": f"{samples / 1e6:.1f} M ({samples / arguments.images:.0f} passes)",
        "global batch, steps": f"{batch}, {steps:,.0f}",
        "training step": f"{step_seconds:.3f} s ({step_flops / 1e12:.1f} TFLOP/GPU)",
        "images/s": f"{rate:,.0f} ({rate / arguments.gpus:.0f} per GPU)",
        "read requests/s": f"{rate * reads:,.0f} of {group / 1e6:.1f} MB",
        "read": f"{rate * reads * group / 1e9:.2f} GB/s",
        "decoding cores per GPU": f"{rate / arguments.gpus * cpu_seconds:.2f}",
        "decoded": f"{rate * 5 * CROP**2 / 1e9:.2f} GB/s",
        "object store (`ray`)": f"{STORE_BLOCKS * block * arguments.gpus_per_node / 1e9:.1f} GB per node",
        "checkpoint": f"{checkpoint / 1e9:.1f} GB every {minutes:.0f} min",
        "hours": f"{hours:,.1f}",
        "dollars": f"{hours * arguments.gpus * arguments.dollars:,.0f}",
    }
    print(f"\n{arguments.model} on {arguments.gpus} GPUs, {arguments.batch_per_gpu} images per GPU")
    for name, value in lines.items():
        print(f"  {name:22} {value}")


def model_size(name: str) -> tuple[int, float]:
    """Number of parameters, and FLOPs of a forward pass on one crop, of the model `name`."""
    model = dpt.create_model(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, CROP, CROP))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()


def stored_bytes(shards: Path) -> float:
    """Mean bytes per stored image with its depth."""
    stored = [shard for dataset in open_datasets([str(shards)]) for shard in dataset.manifest.shards]
    return sum(shard.bytes for shard in stored) / sum(shard.rows for shard in stored)


if __name__ == "__main__":
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    main()
