"""Fine-tuning a model of relative depth against training from scratch, with the same number of steps.

    python benchmarks/finetune.py                   # a few minutes on two cores
    python benchmarks/finetune.py --steps 100 --relative-steps 400 --seeds 3

A small model learns relative depth from rendered scenes in the layout of TartanAir. Then two models of the
same architecture are trained with the same settings on other scenes in the layout of KITTI, whose ground
truth is sparse and metric: one from the relative model, with its average robust scale and shift over the
training set, one from random weights. Prints the metrics of Table 3 on held-out scenes.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
from pathlib import Path

os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

import ray

from datasets_prep.ingest.run import ingest_all
from datasets_prep.manifest import PreparedDataset, open_dataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.synthetic import write_dataset
from pipelines.config import TrainConfig
from pipelines.evaluation.metric_depth import evaluate_metric
from pipelines.evaluation.sets import MetricProtocol
from pipelines.tracking.model_reference import load_checkpoint
from pipelines.train import train

HEIGHT, WIDTH, CROP = 128, 224, (128, 192)
SHOWN = ("delta1", "abs_rel", "rmse", "rmse_log")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--relative-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--scenes", type=int, default=24, help="per dataset")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dpt-finetune-") as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        ray.init(num_cpus=2, _node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Run the experiment in the working directory and print its results."""
    relative_set = prepared("tartanair", arguments.scenes, {"side": HEIGHT})
    metric_set = prepared("kitti", arguments.scenes, {"resize": "none"})
    relative = train(relative_config(arguments.relative_steps), [relative_set.folder.uri], "relative", "runs")
    results: dict[str, list[dict[str, float]]] = {"fine-tuned": [], "from scratch": []}
    for seed in range(arguments.seeds):
        for name, start in (("fine-tuned", relative.checkpoint), ("from scratch", None)):
            config = metric_config(arguments.steps, start, seed)
            run = train(config, [metric_set.folder.uri], f"{name}-{seed}", "runs", show=lambda line: None)
            results[name].append(evaluated(config, metric_set, run.checkpoint))
            print(name, seed, {metric: round(results[name][-1][metric], 4) for metric in SHOWN}, flush=True)
    for metric in SHOWN:
        tuned, scratch = (
            statistics.mean(each[metric] for each in results[name]) for name in ("fine-tuned", "from scratch")
        )
        print(f"{metric:10} fine-tuned {tuned:.4f}  from scratch {scratch:.4f}  ratio {tuned / scratch:.3f}")


def prepared(name: str, scenes: int, settings: dict[str, object]) -> PreparedDataset:
    """Render and prepare a dataset."""
    write_dataset(name, Path("raw") / name, scenes, height=HEIGHT, width=WIDTH)
    ingest_all(plan_ingest(name, f"raw/{name}", IngestSettings(samples_per_shard=16, **settings)), "shards")
    return open_dataset(f"shards/{name}")


def relative_config(steps: int) -> TrainConfig:
    """Relative depth from scratch, as in the demo."""
    return TrainConfig(**common(steps, None, 0), crop=CROP[0])


def metric_config(steps: int, start: str | None, seed: int) -> TrainConfig:
    """Metric depth: the same for both models but for `start`."""
    kitti = {"region": "garg", "gradient_weight": 0.0, "image_size": HEIGHT}
    return TrainConfig(**common(steps, start, seed), task="metric_depth", metric_depth=kitti, crop=CROP)


def common(steps: int, start: str | None, seed: int) -> dict[str, object]:
    """Settings of all runs."""
    rates = {
        "backbone_lr": 1e-3,
        "decoder_lr": 1e-3,
        "schedule": "poly",
        "warmup": 10,
        "objective": "average",
    }
    return {
        "model": {"name": "dpt_small", "pretrained": False, "start": start},
        "optimizer": rates,
        "steps": steps,
        "seed": seed,
        "batch_size": 8,
        "precision": "float32",
        "loader_workers": 0,
        "device": "cpu",
        "log_every": 50,
        "validate_every": steps,
        "checkpoint_every": steps,
    }


def evaluated(config: TrainConfig, dataset: PreparedDataset, checkpoint: str) -> dict[str, float]:
    """Metrics of a checkpoint on held-out scenes."""
    settings = config.metric_depth
    protocol = MetricProtocol(settings.cap, settings.region)
    return evaluate_metric(
        load_checkpoint(checkpoint), [dataset], "val", {dataset.name: protocol}, device="cpu"
    )[dataset.name]


if __name__ == "__main__":
    main()
