"""Depth in metres on your own photos: fine-tune a model on a folder, measure it, and predict with it.

    python examples/finetune_folder.py FOLDER MODEL [KEY=VALUE]...

FOLDER has `images/`, `depth/` and `dataset.yaml` (docs/data.md), MODEL is one of relative depth: a folder, a
checkpoint or hf-hub:Intel/dpt-large. `dpt finetune FOLDER --model MODEL --name mine` does the same.
"""

import sys
from pathlib import Path

import cv2

import dpt
import dpt.predict
from datasets_prep.settings import IngestSettings
from pipelines.config import TrainConfig
from pipelines.config_files import load_section
from pipelines.finetune import finetune, training_data


def main(folder: str, model: str, *overrides: str) -> None:
    """Fine-tune the `model` on the raw dataset in `folder`, with `KEY=VALUE` overrides of the config."""
    config = load_section("train", TrainConfig, None, overrides, "folder", {"model.start": model})
    prepare = load_section("prepare", IngestSettings, None, [], "folder")
    shards = training_data(folder, [], "shards", prepare, print)
    done = finetune(config, shards, "mine", "runs")
    print(f"on the split {done.split}:", {name: round(value, 4) for name, value in done.metrics.items()})

    tuned = dpt.load_model(done.training.checkpoint)
    photo = min((Path(folder) / "images").rglob("*.*"))
    image = cv2.imread(str(photo))[..., ::-1].copy()  # (H, W, 3) uint8 RGB
    depth = 1 / dpt.predict.predict_inverse_depth(tuned, image)  # (H, W) float32, metres
    print(f"{photo}: {depth.min():.2f} to {depth.max():.2f} m")


if __name__ == "__main__":
    main(*sys.argv[1:])
