"""Speed of learning: skill after a number of images, by how gradients are combined and datasets are drawn.

    python benchmarks/learning.py                   # a quarter of an hour on two cores
    python benchmarks/learning.py --steps 100 --seeds 2

Renders ten datasets in the layouts of MIX 6 and trains the demo's model on all of them, with the mean loss
(`average`) and with the paper's `multi_objective`, each with datasets drawn independently (`multinomial`) and
in equal shares of every batch (`stratified`). All runs see as many images. Prints the skill on held-out
images, the mean of the datasets', with its mean and standard deviation over seeds, and draws it as a chart.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import statistics
import tempfile
from pathlib import Path

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}

import ray
import torch
from learning_runs import skills, trained

from datasets_prep.manifest import PreparedDataset, open_datasets
from pipelines.config import TrainConfig
from pipelines.config_files import load_experiment, with_changes
from pipelines.demo import OTHERS, STEREO, TRAINED, Demo
from pipelines.report.charts import SERIES, Dots, dot_chart

BATCH = 20
VARIANTS = tuple(itertools.product(("average", "multi_objective"), ("multinomial", "stratified")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400, help=f"of {BATCH} images")
    parser.add_argument("--images", type=int, default=240, help="of each of the four large datasets")
    parser.add_argument("--others", type=int, default=20, help="scenes of each of the six small ones")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the chart")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    experiment = load_experiment("demo")
    with tempfile.TemporaryDirectory(prefix="dpt-learning-") as folder:
        ray.init(_node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)
        demo = Demo(Path(folder), experiment, print)
        demo.generate(TRAINED, arguments.images)
        demo.generate((*OTHERS, *STEREO), arguments.others)
        demo.stereo()
        prepared = demo.prepare((*TRAINED, *OTHERS, *STEREO))
        ray.shutdown()
        datasets = open_datasets(prepared)
        runs = itertools.product(VARIANTS, range(arguments.seeds))
        found: dict[tuple[str, str], list[float]] = {variant: [] for variant in VARIANTS}
        for variant, seed in runs:
            config = settings(experiment.train, *variant, arguments.steps, seed)
            found[variant].append(learned(config, datasets))
    show(found, arguments.steps * BATCH, arguments.out)


def settings(train: TrainConfig, objective: str, sampling: str, steps: int, seed: int) -> TrainConfig:
    """The demo's training with that objective, sampling, number of steps and seed."""
    changes = {"optimizer.objective": objective, "sampling": sampling, "seed": seed}
    sizes = {
        "steps": steps,
        "batch_size": BATCH,
        "optimizer.warmup": max(1, steps // 20),
        "half_size_share": 0.0,
    }
    return with_changes(train, {**changes, **sizes})


def learned(config: TrainConfig, datasets: list[PreparedDataset]) -> float:
    """Mean over `datasets` of the skill of a model trained with `config`."""
    of_sets = skills(trained(config, datasets), datasets, config)
    mean = statistics.mean(of_sets.values())
    shown = ", ".join(f"{name} {skill:.2f}" for name, skill in of_sets.items())
    print(
        f"{config.optimizer.objective}, {config.sampling}, seed {config.seed}: {mean:.3f} ({shown})",
        flush=True,
    )
    return mean


def show(found: dict[tuple[str, str], list[float]], images: int, folder: Path) -> None:
    """Print the table of mean skills and write the chart to `folder`."""
    print(f"\n| objective | sampling | skill after {images:,} images | of each seed |\n|---|---|---|---|")
    rows = []
    for (objective, sampling), skill in found.items():
        mean, deviation = statistics.mean(skill), statistics.stdev(skill) if len(skill) > 1 else 0.0
        each = ", ".join(f"{one:.3f}" for one in skill)
        print(f"| `{objective}` | `{sampling}` | {mean:.3f} ± {deviation:.3f} | {each} |")
        colour = SERIES[objective == "multi_objective"]
        rows.append(Dots(f"{objective}, {sampling}", mean, deviation, None, colour, clear=True))
    title = f"Skill after {images:,} images"
    chart = dot_chart("learning", title, "", rows, title, ("mean and deviation over seeds", "", ""))
    print(*chart.write(folder), sep="\n")


if __name__ == "__main__":
    main()
