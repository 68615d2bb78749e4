"""`dpt label FOLDER` compared with the bare network at the same batch size: images per second.

    python benchmarks/label.py                                  # DPT-Hybrid on all cores
    python benchmarks/label.py --device cuda --dtype bfloat16 --images 4096 --per-shard 256 --batch-size 32

Rendered photos, 640 × 480, are decoded, predicted once each, and written as shards. The limit is the network
alone on pixels that are already on the device; rounds of the two alternate, and a job's figure is its share
of the mean of the limits before and after it. It is timed from the end of its first shard, which loads the
model. With the comparison of views (`mirror`, `second_scale`) the network runs 2.6 times for an image.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch
from predict import limit, parser_of, print_shares, write_photos

import dpt
from pipelines.config import LabelConfig, PredictConfig
from pipelines.label import plan_labelling


def main() -> None:
    parser = parser_of(__doc__, images=32)
    parser.add_argument("--per-shard", type=int, default=8)
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
    print_shares("dpt label", arguments, rates, limits)


def labelling_rate(settings: LabelConfig, folder: Path, number: int) -> float:
    """Images per second of the photos in a `folder`, after the first shard."""
    out = str(folder / f"round_{number}")
    job = plan_labelling(settings, [str(folder / "photos")], str(folder / "model"), out, "photos")
    times = [(time.perf_counter(), state.done) for state in job.run()]
    (start, first), (end, last) = times[0], times[-1]
    return (last - first) / (end - start)


if __name__ == "__main__":
    main()
