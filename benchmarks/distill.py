"""Students of a teacher's pseudo-labels against models of the labelled images alone, with as many steps.

    python benchmarks/distill.py                    # three seeds: three quarters of an hour on a core
    python benchmarks/distill.py --self             # a teacher that has the students' labelled images alone
    python benchmarks/distill.py --perturb          # the pseudo-labelled images are perturbed

A teacher learns from the demo's rendered scenes of four datasets, and labels pictures of one of them, whose
ground truth nobody has, by `dpt label`. Its students, one of its size and a smaller one, have these labels
and few images of that dataset with ground truth; beside them the same models have these few images alone.
Prints the skill of all on held-out scenes of that dataset: 1 - AbsRel / AbsRel of a mean map. Training runs
in this process: the batches, steps and losses of `dpt train` without its start.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

import ray
from learning_runs import skills, trained

import dpt
from datasets_prep.ingest.run import ingest_all
from datasets_prep.manifest import open_datasets
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.synthetic import write_dataset
from pipelines.config import LabelConfig, TrainConfig
from pipelines.config_files import load_experiment, with_changes
from pipelines.label import plan_labelling

DEMO = load_experiment("demo")
TRAIN = with_changes(DEMO.train, {"half_size_share": 0.0})  # CutMix's rectangles cannot be halved

LABELLED, OTHERS = "redweb", ("hrwsi", "blendedmvs", "tartanair")
"""The dataset of students and held-out scenes; those that only the teacher has."""

SMALL = {
    "model.overrides.backbone_arguments": {"embed_dim": 48, "depth": 2, "num_heads": 3},
    "model.overrides.taps": ["R0", "R1", 1, 2],
    "model.overrides.channels": [32, 48, 48, 48],
    "model.overrides.features": 16,
}
"""A transformer of half the depth and width, and a decoder of half the width."""

STUDENT = {
    "loss.trims.pseudo": 0.1,
    "loss.gradient_weights.pseudo": 0.0,
    "weights": {LABELLED: 1, "pseudo": 2},
}
"""V1's two pseudo-labelled images for each labelled one, V2's losses."""

PERTURB = {"perturb.datasets": ["pseudo"]}
"""V1's perturbations."""

MODELS = {
    "labelled images alone": (False, {}),
    "student of the teacher's size": (True, {}),
    "small model, labelled images alone": (False, SMALL),
    "small student": (True, SMALL),
}
"""Title → whether it learns from pseudo-labels, and its settings."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labelled", type=int, default=200, help="images with ground truth")
    parser.add_argument("--held-out", type=int, default=200, help="images to evaluate on")
    parser.add_argument("--unlabelled", type=int, default=1000, help="images without ground truth")
    parser.add_argument("--others", type=int, default=300, help="scenes of each dataset of the teacher's own")
    parser.add_argument("--self", action="store_true", help="a teacher of the labelled images alone")
    parser.add_argument("--perturb", action="store_true", help="perturb pseudo-labelled images")
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
    pictures, held_out = arguments.labelled + arguments.held_out, arguments.held_out
    prepare(LABELLED, pictures, held_out / pictures)
    for name in () if arguments.self else OTHERS:
        prepare(name, arguments.others, DEMO.prepare.validation_share)
    draw(LABELLED, "unlabelled", arguments.unlabelled, seed=1)
    teacher = with_changes(TRAIN, {"steps": arguments.steps})
    pseudo = pseudo_labelled(learned("teacher", teacher, ["shards"])[0])
    found: dict[str, list[float]] = {title: [] for title in MODELS}
    for seed in range(arguments.seeds):
        for title, (is_student, changes) in MODELS.items():
            settings = {"steps": arguments.steps, "seed": seed, **changes, **(STUDENT if is_student else {})}
            if is_student and arguments.perturb:
                settings |= PERTURB
            data = [f"shards/{LABELLED}", *([pseudo] if is_student else [])]
            skill = learned(f"seed {seed}: {title}", with_changes(TRAIN, settings), data)[1]
            found[title].append(skill)
    print_gains(found)


def print_gains(found: Mapping[str, Sequence[float]]) -> None:
    """Print mean and deviation of the skills of each title, and what the students have gained, by seed."""
    for title, values in found.items():
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        print(f"{title:36} skill {statistics.mean(values):.3f}{deviation}")
    titles = list(found)
    for alone, student in (titles[:2], titles[2:]):
        gains = [after - before for before, after in zip(found[alone], found[student], strict=True)]
        each = ", ".join(f"{gain:+.3f}" for gain in gains)
        print(f"{student}, gain over {alone}: {statistics.mean(gains):+.3f} ({each})")


def learned(title: str, config: TrainConfig, data: Sequence[str]) -> tuple[dpt.DPT, float]:
    """A model trained from scratch on prepared `data`, and its skill on the held-out images.

    Prints a line that begins with `title`.
    """
    start, datasets = time.perf_counter(), open_datasets(list(data))
    model = trained(config, datasets)
    [held_out] = [dataset for dataset in datasets if dataset.name == LABELLED]
    skill = skills(model, [held_out], config)[LABELLED]
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    seconds = time.perf_counter() - start
    print(f"{title}, {size:.2f} M parameters: skill {skill:.3f}, {seconds:.0f} s", flush=True)
    return model, skill


def draw(name: str, root: str, scenes: int, seed: int) -> None:
    """Render scenes of the demo's size, in the layout of the dataset `name`."""
    write_dataset(name, Path(root), scenes, seed, DEMO.demo.height, DEMO.demo.width)


def prepare(name: str, scenes: int, validation_share: float) -> None:
    """Render and prepare a dataset with ground truth, of which `validation_share` is held out."""
    draw(name, f"raw/{name}", scenes, seed=0)
    settings = with_changes(DEMO.prepare, {"validation_share": validation_share})
    print(name, ingest_all(plan_ingest(name, f"raw/{name}", settings), "shards").manifest.samples, flush=True)


def pseudo_labelled(model: dpt.DPT) -> str:
    """Label the pictures whose ground truth nobody has by the teacher `model`; returns their dataset."""
    dpt.save_model(model, Path("teacher"))
    settings = LabelConfig(side=DEMO.prepare.side, samples_per_shard=64, device="cpu")
    for _ in plan_labelling(settings, ["unlabelled/Imgs"], "teacher", "labels", "pseudo").run():
        pass
    return "labels/pseudo"


if __name__ == "__main__":
    main()
