"""From generated data to real pictures: a model that has seen nothing but rendered scenes, on real frames.

    python benchmarks/transfer.py FOLDER          # ten minutes on two cores; more on a GPU, if any
    python benchmarks/transfer.py FOLDER --seeds 1 --steps 600 --scenes 100

Renders scenes on all cores (Ray Data), indoors, on streets and outdoors, prepares them, and trains on nothing
else. FOLDER has real frames, each optional, as listed in `FRAMES`: KITTI, NYUv2, TUM RGB-D, TartanAir,
Middlebury. Prints their AbsRel after alignment and their skill: 1 - AbsRel / AbsRel of the mean map of the
rendered data. Writes a contact sheet with image, ground truth and prediction of each.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}

import numpy as np
import ray
import torch
from learning_runs import trained
from numpy.typing import NDArray

import dpt
from datasets_prep.formats.pictures import decode_grey_png, decode_rgb, encode_png
from datasets_prep.ingest.run import ingest_all
from datasets_prep.inspect.contact_sheet import Picture, contact_sheet
from datasets_prep.manifest import PreparedDataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.rendering import rendering_datasets
from datasets_prep.settings import IngestSettings
from dpt.metrics import depth_metrics
from dpt.predict.colours import colourise
from dpt.predict.depth import predict_batch
from pipelines.config import TrainConfig
from pipelines.config_files import load_experiment, with_changes
from pipelines.evaluation.mean_map import predict_mean_map

GENERATED = ("apolloscape", "diml", "diml_outdoor", "redweb")
"""Streets; rooms and halls; streets, countryside and plazas; walls, rooms and things near the camera."""

FRAMES = {
    "KITTI": ("kitti/rgb/0000000005.png", "kitti/depth/0000000005.png", 256.0, 80.0),
    "NYUv2": ("nyuv2_sync/rgb/rgb_00000.jpg", "nyuv2_sync/depth/sync_depth_00000.png", 1000.0, 10.0),
    "TUM": ("tum_rgbd/rgb/1.png", "tum_rgbd/depth/1.png", 5000.0, 10.0),
    "TartanAir": (
        "tartanair/abandonedfactory/Easy/P000/image_left/000000_left.png",
        "tartanair/abandonedfactory/Easy/P000/depth_left/000000_left_depth.npy",
        1.0,
        80.0,
    ),
    "Middlebury": ("middlebury2014/motorcycle_left.png", "middlebury2014/motorcycle_disp.npz", 1.0, 10.0),
}
"""Frame → files of image and ground truth, stored units of a metre, cap in metres."""

FOCAL, BASELINE, OFFSET = 994.978, 0.193001, 31.086
"""Of Middlebury's Motorcycle at a quarter of its size: pixels, metres, pixels of disparity at infinity."""

CARD = {
    "model.name": "dpt_hybrid",
    "optimizer.backbone_lr": 3e-4,
    "optimizer.decoder_lr": 3e-4,
    "crop": 224,
    "batch_size": 32,
    "precision": "bfloat16",
    "loader_workers": 12,
}
"""Changes of the demo's training on a GPU; not tried on one."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_card = torch.cuda.is_available()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=1500 if on_card else 600, help="of each dataset")
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--seeds", type=int, default=1 if on_card else 3)
    parser.add_argument("--out", type=Path, default=Path("transfer.png"), help="contact sheet")
    arguments = parser.parse_args()
    frames = {name: read_frame(arguments.folder, *files) for name, files in FRAMES.items()
              if (arguments.folder / files[0]).exists()}  # fmt: skip
    if not frames:
        parser.error(f"{arguments.folder}: none of the frames is there, e.g. {FRAMES['KITTI'][0]}")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    changes = {"steps": arguments.steps, "half_size_share": 0.0, **(CARD if on_card else {})}
    config = with_changes(load_experiment("demo").train, changes)
    with tempfile.TemporaryDirectory(prefix="dpt-transfer-") as folder:
        start = time.perf_counter()
        datasets = generated(Path(folder), arguments.scenes, config.crop_size[0])
        print(f"{arguments.scenes} scenes of {len(GENERATED)} layouts: {time.perf_counter() - start:.0f} s")
        compare(config, datasets, frames, arguments.seeds, arguments.out)


def generated(folder: Path, scenes: int, side: int) -> list[PreparedDataset]:
    """Render and prepare `scenes` of each dataset below `folder`, with a shorter side of `side` pixels."""
    ray.init(_node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)
    height, width = 2 * side, 3 * side
    sets = {name: (folder / "raw" / name, scenes) for name in GENERATED}
    for _ in rendering_datasets(sets, 0, height, width):
        pass
    settings = IngestSettings(side=side, samples_per_shard=64)
    datasets = [
        ingest_all(plan_ingest(name, str(folder / "raw" / name), settings), str(folder / "shards"))
        for name in GENERATED
    ]
    ray.shutdown()
    return datasets


Frame = tuple[Picture, NDArray[np.float32], float]
"""Image (H, W, 3) uint8, inverse depth (H, W) in 1/m, NaN where unknown, and cap in metres."""


def read_frame(folder: Path, image: str, depth: str, units: float, cap: float) -> Frame:
    """A real frame: see `FRAMES`."""
    data = (folder / depth).read_bytes()
    if depth.endswith(".npz"):
        [disparity] = np.load(io.BytesIO(data)).values()
        metres = FOCAL * BASELINE / (disparity.astype(np.float32) + OFFSET)
        metres[~np.isfinite(disparity)] = 0
    elif depth.endswith(".npy"):
        metres = np.load(io.BytesIO(data))
    else:
        metres = decode_grey_png(data, "depth") / np.float32(units)
    known = np.isfinite(metres) & (metres > 0)
    inverse = np.where(known, 1 / np.where(known, metres, 1), np.nan).astype(np.float32)
    return decode_rgb((folder / image).read_bytes()), inverse, cap


def compare(
    config: TrainConfig, datasets: Sequence[PreparedDataset], frames: dict[str, Frame], seeds: int, out: Path
) -> None:
    """Train with each seed, print the table, and write the contact sheet of the last model."""
    means = {
        name: torch.stack([predict_mean_map(data, 1, *truth.shape)[0] for data in datasets]).mean(0).numpy()
        for name, (_, truth, _) in frames.items()
    }
    baseline = {name: abs_rel(means[name], frame) for name, frame in frames.items()}
    found: dict[str, list[float]] = {name: [] for name in frames}
    rows: list[list[Picture]] = []
    for seed in range(seeds):
        start = time.perf_counter()
        model = trained(with_changes(config, {"seed": seed}), datasets, device())
        rows = []
        for name, (image, truth, cap) in frames.items():
            prediction = predicted(model, image)
            found[name].append(abs_rel(prediction, (image, truth, cap)))
            rows.append([image, colourise(np.nan_to_num(truth)), colourise(prediction)])
        print(f"seed {seed}: {config.model.name}, {config.steps} steps, {time.perf_counter() - start:.0f} s")
    show(baseline, found)
    titles = [
        f"{name}: AbsRel {values[-1]:.3f}, mean map {baseline[name]:.3f}" for name, values in found.items()
    ]
    out.write_bytes(encode_png(contact_sheet(rows, titles)))
    print(out)


def device() -> str:
    """Where to train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def predicted(model: dpt.DPT, image: Picture) -> NDArray[np.float32]:
    """Inverse depth (H, W) of an image, at its size."""
    with torch.inference_mode():
        [prediction] = predict_batch(model, [image])
    return np.asarray(prediction, np.float32)


def abs_rel(prediction: NDArray[np.floating], frame: Frame) -> float:
    """AbsRel of a `prediction` (H, W) of inverse depth after alignment."""
    _, truth, cap = frame
    target = torch.from_numpy(truth)[None]
    aligned = depth_metrics(torch.from_numpy(prediction)[None], target.nan_to_num(0.0), ~target.isnan(), cap)
    return float(aligned["abs_rel"])


def show(baseline: dict[str, float], found: dict[str, list[float]]) -> None:
    """Print AbsRel and skill of each frame, and the mean skill of each seed."""
    print("\n| | mean map | AbsRel | skill | of each seed |\n|---|---|---|---|---|")
    skill = {name: [1 - value / baseline[name] for value in values] for name, values in found.items()}
    for name, values in skill.items():
        each = ", ".join(f"{value:+.2f}" for value in values)
        mean = statistics.mean(found[name])
        print(f"| {name} | {baseline[name]:.3f} | {mean:.3f} | {statistics.mean(values):+.2f} | {each} |")
    means = [statistics.mean(values) for values in zip(*skill.values(), strict=True)]
    print(f"| mean | | | {statistics.mean(means):+.3f} | {', '.join(f'{mean:+.3f}' for mean in means)} |\n")


if __name__ == "__main__":
    main()
