"""Students of pseudo-labels against models of the labelled images alone, with the same number of steps.

    python benchmarks/distill.py                    # three seeds: about forty minutes on two idle cores
    python benchmarks/distill.py --steps 200 --seeds 1

The demo's rendered scenes, with ground truth for few of them. For each seed a teacher learns from these and
labels the others by `dpt label`; then a student of the same size learns from both, its pseudo-labelled images
perturbed as in Depth Anything, and a smaller model learns once from both and once from the labelled images.
Prints the skill of all four on held-out scenes: 1 - AbsRel / AbsRel of a mean map. Training runs in this
process: the batches, steps and losses of `dpt train` without its start.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

import ray
import torch

import dpt
from datasets_prep.ingest.run import ingest_all
from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.synthetic import write_dataset
from pipelines.config import LabelConfig, TrainConfig
from pipelines.config_files import load_experiment, with_changes
from pipelines.label import plan_labelling
from pipelines.loading.batches import training_batches
from pipelines.tasks.registry import task_of
from pipelines.tracking.metric_keys import SKILL
from pipelines.training.loop import loader_settings
from pipelines.training.optimizer import create_optimizer, set_learning_rates
from pipelines.training.ranks import Ranks
from pipelines.training.start import build_model
from pipelines.training.step import TrainingStep

DEMO = load_experiment("demo")

SMALL = {
    "model.overrides.backbone_arguments": {"embed_dim": 48, "depth": 2, "num_heads": 3},
    "model.overrides.taps": ["R0", "R1", 1, 2],
    "model.overrides.channels": [32, 48, 48, 48],
    "model.overrides.features": 16,
}
"""A transformer of half the depth and width, and a decoder of half the width."""

STUDENT = {
    "perturb.datasets": ["pseudo"],
    "loss.trims.pseudo": 0.1,
    "loss.gradient_weights.pseudo": 0.0,
    "weights": {"redweb": 1, "pseudo": 2},
}
"""V1's perturbations and its two pseudo-labelled images for each labelled one, V2's losses."""

MODELS = {
    "teacher: labelled images alone": (False, {}),
    "student of the same size": (True, {}),
    "small model, labelled images alone": (False, SMALL),
    "small student": (True, SMALL),
}
"""Title → whether it learns from pseudo-labels, and its settings; the teacher first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labelled", type=int, default=200, help="images with ground truth")
    parser.add_argument("--held-out", type=int, default=200, help="images to evaluate on")
    parser.add_argument("--unlabelled", type=int, default=1000, help="images without ground truth")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dpt-distill-") as folder:
        os.chdir(folder)
        ray.init(num_cpus=2, _node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Run the experiment in the working directory and print its results."""
    prepare(arguments.labelled, arguments.held_out)
    draw("unlabelled", arguments.unlabelled, seed=1)
    found: dict[str, list[float]] = {title: [] for title in MODELS}
    for seed in range(arguments.seeds):
        pseudo: list[str] = []
        for title, (is_student, changes) in MODELS.items():
            start = time.perf_counter()
            datasets = open_datasets(["shards/redweb", *(pseudo if is_student else [])])
            settings = {"steps": arguments.steps, "seed": seed, **changes, **(STUDENT if is_student else {})}
            model, skill = trained(with_changes(DEMO.train, settings), datasets)
            pseudo = pseudo or [pseudo_labelled(model, seed)]
            found[title].append(skill)
            size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
            what = f"seed {seed}: {title}, {size:.2f} M parameters"
            print(f"{what}: skill {skill:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    for title, skills in found.items():
        deviation = f" ± {statistics.stdev(skills):.3f}" if len(skills) > 1 else ""
        print(f"{title:36} skill {statistics.mean(skills):.3f}{deviation}")
    titles = list(MODELS)
    for alone, student in (titles[:2], titles[2:]):
        gains = [after - before for before, after in zip(found[alone], found[student], strict=True)]
        each = ", ".join(f"{gain:+.3f}" for gain in gains)
        print(f"{student}, gain over {alone}: {statistics.mean(gains):+.3f} ({each})")


def trained(config: TrainConfig, datasets: Sequence[PreparedDataset]) -> tuple[dpt.DPT, float]:
    """A model trained from scratch by `config` on `datasets`, and its skill on the held-out images."""
    torch.manual_seed(config.seed)
    model = build_model(config.model, config.crop_size).train().to(memory_format=torch.channels_last)
    optimizer, names = create_optimizer(model, config), [dataset.name for dataset in datasets]
    step = TrainingStep(model, model, optimizer, None, config, names, Ranks())
    batches = training_batches(loader_settings(config, datasets, 0, Ranks()), 0)
    for number, batch in enumerate(batches, start=1):
        set_learning_rates(optimizer, config, number - 1)
        step(batch, number)
    [held_out] = [dataset for dataset in datasets if "val" in dataset.manifest.samples]
    return model, task_of(config).evaluate_share(model, held_out, "val", 0, 1).result()[SKILL]


def draw(root: str, images: int, seed: int) -> None:
    """Render `images` scenes of the demo's size, in the layout of ReDWeb."""
    write_dataset("redweb", Path(root), images, seed, DEMO.demo.height, DEMO.demo.width)


def prepare(labelled: int, held_out: int) -> None:
    """Render and prepare images with ground truth."""
    draw("raw", labelled + held_out, seed=0)
    settings = with_changes(DEMO.prepare, {"validation_share": held_out / (labelled + held_out)})
    print(ingest_all(plan_ingest("redweb", "raw", settings), "shards").manifest.samples, flush=True)


def pseudo_labelled(model: dpt.DPT, seed: int) -> str:
    """Label the images whose ground truth is hidden by the teacher `model`; returns their folder."""
    dpt.save_model(model, Path(f"teacher{seed}"))
    settings = LabelConfig(side=DEMO.prepare.side, samples_per_shard=64, device="cpu")
    job = plan_labelling(settings, ["unlabelled/Imgs"], f"teacher{seed}", f"labels{seed}", "pseudo")
    for _ in job.run():
        pass
    return f"labels{seed}/pseudo"


if __name__ == "__main__":
    main()
