"""From `dpt train` to its first step, part by part, beside a bare start of the same libraries.

    python benchmarks/start.py                      # about four minutes on two cores
    python benchmarks/start.py --runs 1 --config paper

Every run is a new process with a new MLflow database, as on a user's first day. The table has the median
seconds of each part, and two floors: importing the four libraries, and Ray and Ray Train until they call a
function that does nothing else. Parts follow each other, so their sum is the time to the first step.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BARE = """
import time
start = time.time()
import torch, timm, ray, mlflow
print(time.time() - start)
import logging
from ray.train import LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
def called():
    print(time.time(), file=open(FOLDER + "/called", "w"))
start = time.time()
ray.init(logging_level=logging.ERROR)
run = RunConfig(name="bare", storage_path=FOLDER, logging_config=LoggingConfig(log_level="WARNING"))
TorchTrainer(called, scaling_config=ScalingConfig(num_workers=1), run_config=run).fit()
print(float(open(FOLDER + "/called").read()) - start)
"""
"""Prints the two floors in seconds."""

FLOORS = ("floor: import torch, timm, ray, mlflow", "floor: Ray and Ray Train, until a bare rank is called")

PARTS = (
    "imports", "config and checks", "Ray", "MLflow", "Ray Train: controller, placement, process",
    "a rank's imports", "model, optimiser, report", "loaders and first batch", "first step",
)  # fmt: skip
"""In their order; each ends at its first mark."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--config", default="demo", help="of the training, as of `dpt train --config`")
    parser.add_argument("--marked", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.marked:
        train_marked(arguments.marked, arguments.config)
        return
    with tempfile.TemporaryDirectory(prefix="dpt-start-") as folder:
        _environment(folder)
        prepare(Path(folder))
        print_table([measured(arguments.config, folder, run) for run in range(arguments.runs)])


def _environment(folder: str) -> None:
    repository = str(Path(__file__).resolve().parents[1])
    path = [repository, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # of both: ours has it by itself
        "PYTHONPATH": os.pathsep.join(path),
    }
    os.environ.pop("RAY_ADDRESS", None)
    os.chdir(folder)


def prepare(folder: Path) -> None:
    """Render and prepare a miniature of ReDWeb into `folder`/shards."""
    import ray

    from datasets_prep.ingest.run import ingest_all
    from datasets_prep.plan.shards import plan_ingest
    from datasets_prep.settings import IngestSettings
    from datasets_prep.synthetic import write_dataset

    write_dataset("redweb", folder / "raw", 40, height=192, width=256)
    ray.init("local", log_to_driver=False, logging_level=logging.ERROR)
    settings = IngestSettings(side=128, validation_share=0.15)
    ingest_all(plan_ingest("redweb", str(folder / "raw"), settings), str(folder / "shards"))
    ray.shutdown()


def measured(config: str, folder: str, run: int) -> dict[str, float]:
    """Seconds of each part of one training with `config` in `folder`, and of the floors; `run` counts."""
    marks = Path(folder) / f"marks{run}"
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow{run}.db"
    started = time.time()
    command = [sys.executable, __file__, "--config", config, "--marked", str(marks)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ended = time.time()
    steps: list[float] = []
    times: dict[str, float] = {}
    for part, at in map(json.loads, marks.read_text().splitlines()):
        times.setdefault(part, at)
        steps += [at] if part == "first step" else []
    ends = [started, *(times[part] for part in PARTS)]
    parts = {part: ends[i + 1] - ends[i] for i, part in enumerate(PARTS)}
    parts["command to first step"] = ends[-1] - started
    parts["last step to the command's end"] = ended - steps[-1]
    bare = Path(folder) / f"bare{run}"
    bare.mkdir()
    command = [sys.executable, "-c", BARE.replace("FOLDER", repr(str(bare)))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return parts | dict(zip(FLOORS, map(float, printed.split()), strict=True))


def print_table(runs: list[dict[str, float]]) -> None:
    """Print the median of each part over `runs`."""
    for part in runs[0]:
        print(f"{statistics.median(run[part] for run in runs):6.1f} s  {part}")


def mark(path: Path, part: str) -> None:
    """Append to the file at `path` that a `part` ends now."""
    with path.open("a") as file:
        file.write(json.dumps([part, time.time()]) + "\n")


def train_marked(path: Path, config: str) -> None:
    """Train five steps with `config` on ./shards and leave marks in the file at `path`."""
    gc.set_threshold(50_000, 20, 100)  # as the command does
    from pipelines import train as driver
    from pipelines.config import TrainConfig
    from pipelines.config_files import load_section

    mark(path, "imports")
    _marking(driver, "connect", path, before="config and checks", after="Ray")
    _marking(driver.DataParallelTrainer, "fit", path, before="MLflow")
    driver.train_loop = functools.partial(rank_marked, str(path))
    settings = load_section("train", TrainConfig, config, ["steps=5", "log_every=1"])
    driver.train(settings, ["shards"], path.name, "runs")


def rank_marked(path: str, arguments: dict[str, Any]) -> None:
    """As `pipelines.training.entry.train_loop` with `arguments`, but with marks in the file at `path`."""
    marks = Path(path)
    mark(marks, "Ray Train: controller, placement, process")
    from pipelines.training import entry, loop

    mark(marks, "a rank's imports")
    _marking(loop, "training_batches", marks, before="model, optimiser, report")
    _marking(loop.TrainingStep, "__call__", marks, before="loaders and first batch", after="first step")
    entry.train_loop(arguments)


def _marking(owner: Any, name: str, path: Path, before: str = "", after: str = "") -> None:
    """Make the function `name` of a module or class `owner` leave marks."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def marking(*args: Any, **kwargs: Any) -> Any:
        if before:
            mark(path, before)
        result = function(*args, **kwargs)
        if after:
            mark(path, after)
        return result

    setattr(owner, name, marking)


if __name__ == "__main__":
    main()
