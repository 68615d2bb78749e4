"""What is measured of a trial's model: Table 9, Figure 4, and pictures of its predictions.

Table 9: parameters, and latency of one square image. Latency does not depend on the weights, so nothing has
to be trained; but it does on the machine's other load, so it is measured when no trial runs, one model after
the other.

Figure 4: AbsRel of a trained model with images at higher resolutions than those of training.

Pictures: image, ground truth and prediction of the same few validation images in every trial.
"""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.manifest import open_datasets
from dpt.predict.colours import colourise
from dpt.predict.depth import predict_inverse_depth
from pipelines.config import EvaluateConfig, ModelSection, TrainConfig
from pipelines.evaluate import evaluate
from pipelines.loading.batches import evaluation_batches
from pipelines.report.pictures import FIGURE_4_STEPS
from pipelines.tracking.metric_keys import with_mean
from pipelines.tracking.runs import Run
from pipelines.training.report import wait_for
from pipelines.training.start import build_model
from tune import records

# ---- Table 9


@dataclass(frozen=True)
class Latency:
    """Average time of a prediction in `milliseconds`, of a model of `parameters_millions`, on a `device`."""

    milliseconds: float
    parameters_millions: float
    device: str


def count_parameters(model: dpt.DPT) -> float:
    """Parameters of a `model` in millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def measure_latency(section: ModelSection, side: int, runs: int, use_gpu: bool, threads: int) -> Latency:
    """Measure in a Ray task the latency of the model of a config `section`, without its weights.

    `runs` predictions of a square image with sides of `side` pixels are averaged, on one of the cluster's
    GPUs if `use_gpu`, else on `threads` CPU cores.
    """
    task = _measure.options(num_cpus=1 if use_gpu else threads, num_gpus=1 if use_gpu else 0)
    found: Latency = ray.get(task.remote(section.model_dump(), side, runs, use_gpu, threads))
    return found


@ray.remote
def _measure(section: dict[str, Any], side: int, runs: int, use_gpu: bool, threads: int) -> Latency:
    torch.set_num_threads(threads)
    device = torch.device("cuda" if use_gpu else "cpu")
    untrained = ModelSection(**section).model_copy(update={"pretrained": False})
    model = build_model(untrained, (side, side))
    name = torch.cuda.get_device_name(device) if use_gpu else f"{_processor()}, {threads} threads"
    seconds = seconds_a_prediction(dpt.FastDPT(model, device), side, runs)
    return Latency(1000 * seconds, count_parameters(model), name)


@torch.inference_mode()
def seconds_a_prediction(model: dpt.DPT, side: int, runs: int) -> float:
    """Average seconds of `runs` predictions by a `model` of one `side` × `side` image, after warming up."""
    device = next(model.parameters()).device
    image = torch.rand((1, 3, side, side), device=device)
    for _ in range(max(2, round(0.1 * runs))):  # the second one records a CUDA graph
        model(image)
    wait_for(device)
    start = time.perf_counter()
    for _ in range(runs):
        model(image)
    wait_for(device)
    return (time.perf_counter() - start) / runs


def _processor() -> str:
    """Name of the processor, where the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# ---- Figure 4


def resolutions(crop: int, divisor: int, chosen: Sequence[int]) -> list[int]:
    """Sides in pixels to evaluate at, ascending, none smaller than the training crop's.

    Args:
        crop: side of the training crop in pixels; always one of them.
        divisor: the others are rounded to multiples of it, whole patches.
        chosen: by the user; empty for `crop` times `FIGURE_4_STEPS`.
    """
    wanted: Sequence[float] = chosen or [crop * step for step in FIGURE_4_STEPS]
    whole = {max(crop, round(side / divisor) * divisor) for side in wanted}
    return sorted({crop, *whole})


def log_resolutions(
    run: Run,
    checkpoint: Path,
    data: Sequence[str],
    config: TrainConfig,
    sides: Sequence[int],
    threads: int,
    known: dict[str, float],
) -> None:
    """Evaluate at all resolutions that `known` lacks, and log AbsRel of each dataset and their mean.

    AbsRel at the training resolution is that of the training's last validation. At others the shorter side of
    an image is resized to it: the resize rule of most models would change its size as little as it can.

    `run` is that of the trial, with `known` metrics; `checkpoint` a local folder with the model trained by
    `config`; `data` are version folders of the datasets; `sides` are from `resolutions`; `threads` the CPU
    cores of a worker without GPU.
    """
    names = sorted(
        key.removeprefix(records.abs_rel("")) for key in known if key.startswith(records.abs_rel(""))
    )
    fields: dict[str, Any] = {"split": config.val_split, "rule": "lower_bound", "caps": config.caps}
    fields |= {"workers": config.most_workers, "device": config.device}
    for side in (side for side in sides if records.abs_rel_at(side, records.MEAN) not in known):
        if side == min(config.crop_size):
            figures = {name: known[records.abs_rel(name)] for name in names}
        else:
            results = evaluate(EvaluateConfig(side=side, **fields), checkpoint, data, threads)
            figures = {name: result["abs_rel"] for name, result in with_mean(results).items()}
        run.log_metrics({records.abs_rel_at(side, n): value for n, value in figures.items()}, config.steps)


# ---- pictures


def log_pictures(run: Run, model: dpt.DPT, data: Sequence[str], split: str, count: int) -> None:
    """Log to a trial's `run` image, ground truth and prediction by its `model` of some images.

    They are the first `count` images of the `split` of each dataset in the version folders `data`.
    """
    for dataset in open_datasets(list(data)):
        batches = evaluation_batches(dataset, split, 0, rank=0, world_size=1, batch_size=1)
        for number, batch in enumerate(itertools.islice(batches, count)):
            image = batch.images[0].numpy()
            pictures: dict[str, NDArray[np.uint8]] = {
                records.IMAGE: image,
                records.TRUTH: colourise(batch.target[0].float().numpy()),
                records.PREDICTION: colourise(predict_inverse_depth(model, image)),
            }
            for what, picture in pictures.items():
                run.log_picture(picture, records.picture_path(dataset.name, number, what))
