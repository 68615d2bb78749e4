"""`dpt evaluate --on …` compared with the bare forward pass of the same network: images per second.

    python benchmarks/evaluate.py                                  # DPT-Hybrid on all cores
    python benchmarks/evaluate.py --device cuda --images 2000 --batch-size 32

Images and ground truth are generated in the layout of TUM RGB-D, 640 × 480. The upper limit is the network on
random pixels in this process, with the evaluation's input size, batch size and number of threads; it is
measured before and after. The evaluation is timed from the first finished unit of images to the last, and as
a whole: starting actors and loading the model take some seconds for any number of images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import torch

import dpt
from datasets_prep.synthetic import VIEWS, write_dataset
from dpt.predict.transforms import network_size
from pipelines.cluster.session import connect, cpus_per_worker
from pipelines.config import ZeroShotConfig
from pipelines.zero_shot.run import evaluate_zero_shot
from pipelines.zero_shot.sets import FoundSet, find_sets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="dpt_hybrid", choices=dpt.list_models())
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    arguments = parser.parse_args()
    connect()
    settings = ZeroShotConfig(batch_size=arguments.batch_size, device=arguments.device, worst=0)
    network = dpt.create_model(arguments.model).eval()
    torch.set_num_threads(cpus_per_worker(1))
    with tempfile.TemporaryDirectory(prefix="dpt-benchmark-") as folder:
        write_dataset(
            "tum", Path(folder), -(-arguments.images // VIEWS), height=arguments.height, width=arguments.width
        )
        [found] = find_sets(["tum"], [folder], {})
        before = forward_rate(network, arguments)
        whole, steady = evaluation_rates(settings, network, found)
        after = forward_rate(network, arguments)
    limit = (before + after) / 2
    print(f"{arguments.model}, {len(found.samples)} images, batches of {arguments.batch_size}")
    print(f"forward pass alone   {before:.3f} images/s before, {after:.3f} after")
    print(f"evaluation           {steady:.3f} images/s = {steady / limit:.2f} of the forward pass alone")
    print(f"with its start       {whole:.3f} images/s = {whole / limit:.2f}")


def forward_rate(network: dpt.DPT, arguments: argparse.Namespace) -> float:
    """Images per second of the network alone, over half as many images as are evaluated."""
    side, divisor = network.config.side, network.size_divisor
    size = network_size(arguments.height, arguments.width, side, "upper_bound", divisor)
    shape = (arguments.batch_size, 3, *size)
    fast = dpt.FastDPT(network, arguments.device)
    pixels = torch.rand(shape, device=arguments.device)
    batches = max(2, arguments.images // arguments.batch_size // 2)
    with torch.inference_mode():
        for _ in range(2):
            fast(pixels).sum().item()
        start = time.perf_counter()
        for _ in range(batches):
            fast(pixels).sum().item()
        seconds = time.perf_counter() - start
    return batches * arguments.batch_size / seconds


def evaluation_rates(settings: ZeroShotConfig, network: dpt.DPT, found: FoundSet) -> tuple[float, float]:
    """Images per second of the evaluation: as a whole, and after its first finished unit."""
    arrivals: list[tuple[float, int]] = []
    start = time.perf_counter()
    evaluate_zero_shot(
        settings, network, [found], on_progress=lambda n: arrivals.append((time.perf_counter(), n))
    )
    times, counts = (np.array(column) for column in zip(*arrivals, strict=True))
    if len(times) < 2:
        raise SystemExit("all images came at once: take more images")
    whole = counts.sum() / (times[-1] - start)
    return float(whole), float(counts[1:].sum() / (times[-1] - times[0]))


if __name__ == "__main__":
    main()
    ray.shutdown()
