"""`dpt predict FOLDER` compared with the bare network at the same batch size: images per second.

    python benchmarks/predict.py                                  # DPT-Hybrid on all cores
    python benchmarks/predict.py --device cuda --dtype bfloat16 --images 2000 --batch-size 32

Rendered photos, 640 × 480, are decoded, predicted and written as all three files. The limit is the network
alone on pixels that are already on the device; rounds of the two alternate, and a prediction's figure is its
share of the mean of the limits before and after it. It is timed from the end of its second batch, since the
first ones load and record.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch

import dpt
from datasets_prep.synthetic import render_scene
from dpt.predict.transforms import network_size
from pipelines.config import PredictConfig
from pipelines.predict import predict
from pipelines.training.report import wait_for

SECONDS = 2.0
"""For which the network is measured each time."""

SCENES = 8
"""That are rendered; the photos are copies of them."""


def main() -> None:
    parser = parser_of(__doc__, images=24)
    arguments = parser.parse_args()
    if arguments.images < 3 * arguments.batch_size:
        parser.error("--images: expected at least three batches")
    settings = PredictConfig.model_validate(
        {name: getattr(arguments, name) for name in ("batch_size", "device", "dtype")}
    )
    network = dpt.create_model(arguments.model).eval()
    limits, rates = [limit(settings, network)], []
    with tempfile.TemporaryDirectory(prefix="dpt-benchmark-") as folder:
        write_photos(Path(folder) / "photos", arguments.images)
        for number in range(arguments.rounds):
            rates.append(prediction_rate(settings, network, Path(folder), number))
            limits.append(limit(settings, network))
    print_shares("dpt predict", arguments, rates, limits)


def parser_of(description: str | None, images: int) -> argparse.ArgumentParser:
    """The options of a command that is measured beside its network; `images` is their default number."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="dpt_hybrid", choices=dpt.list_models())
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser


def print_shares(
    command: str, arguments: argparse.Namespace, rates: Sequence[float], limits: Sequence[float]
) -> None:
    """Print each rate of a `command`, in images/s, beside those of the network before and after it."""
    what = f"{arguments.images} images, batches of {arguments.batch_size}, {arguments.dtype}"
    print(f"{arguments.model}, {what}")
    shares = []
    for rate, before, after in zip(rates, limits, limits[1:], strict=False):
        shares.append(2 * rate / (before + after))
        print(f"{command} {rate:.2f} images/s, the network {before:.2f} and {after:.2f}: {shares[-1]:.2f}")
    print(f"median {statistics.median(shares):.2f}")


def write_photos(folder: Path, count: int) -> None:
    """Write `count` JPEG files of rendered scenes to a new `folder`."""
    folder.mkdir()
    scenes = [render_scene(seed, 480, 640).image[..., ::-1] for seed in range(SCENES)]
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:05}.jpg"), scenes[number % SCENES])


@torch.inference_mode()
def limit(settings: PredictConfig, network: dpt.DPT) -> float:
    """Images per second of the `network` alone, of the photos' size in it."""
    fast = dpt.FastDPT(network, settings.device, getattr(torch, settings.dtype))
    height, width = network_size(480, 640, network.config.side, network.config.resize_rule)
    pixels = torch.rand((settings.batch_size, 3, height, width), device=settings.device)
    for _ in range(2):
        fast(pixels)
    wait_for(pixels.device)
    count, start = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - start < SECONDS:
        fast(pixels)
        count += 1
        if not count % 10:
            wait_for(pixels.device)  # else the clock is that of the launches
    wait_for(pixels.device)
    return count * settings.batch_size / (time.perf_counter() - start)


def prediction_rate(settings: PredictConfig, network: dpt.DPT, folder: Path, number: int) -> float:
    """Images per second of the photos in a `folder`, after two batches."""
    out = str(folder / f"round_{number}")
    times = [time.perf_counter() for _ in predict(settings, network, [str(folder / "photos")], out)]
    warm = 2 * settings.batch_size
    return (len(times) - warm) / (times[-1] - times[warm - 1])


if __name__ == "__main__":
    main()
