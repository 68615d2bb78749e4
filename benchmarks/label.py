"""`dpt label FOLDER` compared with the bare network at the same batch size: images per second.

    python benchmarks/label.py                                  # DPT-Hybrid on all cores
    python benchmarks/label.py --device cuda --dtype bfloat16 --images 4096 --per-shard 256 --batch-size 32

Rendered photos, 640 × 480, are decoded, predicted once each, and written as shards. The limit is the network
alone on pixels that are already on the device; rounds of the two alternate, and a job's figure is its share
of the mean of the limits before and after it. It is timed from the end of its first shard, which loads the
model. With the comparison of views (`mirror`, `second_scale`) the network runs 2.6 times for an image.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from predict import limit, write_photos

import dpt
from pipelines.config import LabelConfig, PredictConfig
from pipelines.label import plan_labelling


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="dpt_hybrid", choices=dpt.list_models())
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--per-shard", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    arguments = parser.parse_args()
    if arguments.images < 3 * arguments.per_shard:
        parser.error("--images: expected at least three shards")
    same = {name: getattr(arguments, name) for name in ("batch_size", "device", "dtype")}
    settings = LabelConfig(
        **same,
        mirror=False,
        second_scale=None,
        samples_per_shard=arguments.per_shard,
        threads=os.cpu_count() or 1,
        workers=1,
        gpus=1.0,
    )
    network = dpt.create_model(arguments.model).eval()
    alone = PredictConfig.model_validate(same)
    torch.set_num_threads(settings.threads)
    limits, rates = [limit(alone, network)], []
    with tempfile.TemporaryDirectory(prefix="dpt-benchmark-") as folder:
        write_photos(Path(folder) / "photos", arguments.images)
        dpt.save_model(network, Path(folder) / "model")
        for number in range(arguments.rounds):
            rates.append(labelling_rate(settings, Path(folder), number))
            limits.append(limit(alone, network))
    print(
        f"{arguments.model}, {arguments.images} images, batches of {arguments.batch_size}, {settings.dtype}"
    )
    shares = []
    for rate, before, after in zip(rates, limits, limits[1:], strict=False):
        shares.append(2 * rate / (before + after))
        print(f"dpt label {rate:.2f} images/s, the network {before:.2f} and {after:.2f}: {shares[-1]:.2f}")
    print(f"median {statistics.median(shares):.2f}")


def labelling_rate(settings: LabelConfig, folder: Path, number: int) -> float:
    """Images per second of the photos in a `folder`, after the first shard."""
    out = str(folder / f"round_{number}")
    job = plan_labelling(settings, [str(folder / "photos")], str(folder / "model"), out, "photos")
    times = [(time.perf_counter(), state.done) for state in job.run()]
    (start, first), (end, last) = times[0], times[-1]
    return (last - first) / (end - start)


if __name__ == "__main__":
    main()
