"""What a sweep costs: N short trials by `dpt tune` beside the same trainings one after another.

    python benchmarks/sweep.py [--trials 3] [--steps 40] [--concurrency 1]

Both train the same variants on the same generated shards in one run of Ray, each training with the same
processes and threads, and log to MLflow. The sweep has its trials' drivers, its parent run and Ray Tune on
top.
With `--concurrency 2` its trials share the cores, and the trainings beside it still take turns, each with as
many threads as a trial has.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from datasets_prep.ingest.run import ingest_all
from datasets_prep.manifest import open_datasets
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.synthetic import write_dataset
from pipelines.cluster.session import connect
from pipelines.config import TrainConfig, TuneConfig
from pipelines.config_files import with_changes
from pipelines.tracking import runs as tracking
from pipelines.train import train
from pipelines.training.board import Supervision
from tune.ablations import AblationTable, Row
from tune.plan import SweepPlan, plan_sweep
from tune.scheduling import place_trials
from tune.sweep import run_sweep

SMALL = {
    "model.name": "dpt_small", "model.pretrained": False, "batch_size": 8, "crop": 64, "precision": "float32",
    "loader_workers": 0, "log_every": 20, "validate_every": 100, "checkpoint_every": 100,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--concurrency", type=int, default=1)
    options = parser.parse_args()
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    with tempfile.TemporaryDirectory(prefix="dpt-sweep-") as folder:
        os.chdir(folder)
        connect()
        tracking.connect()
        plan = make_plan(options)
        warm_up(plan)
        alone = trained_in_turn(plan, options.concurrency)
        together = swept(plan)
        print(f"{options.trials} trainings of {options.steps} steps, {options.concurrency} at once")
        print(f"  one after another  {sum(alone):6.1f} s  ({', '.join(f'{s:.1f}' for s in alone)})")
        print(f"  as a sweep         {together:6.1f} s")
        print(f"  ratio              {together / sum(alone):6.2f}")


def make_plan(options: argparse.Namespace) -> SweepPlan:
    """As many variants as there are trials."""
    for name in ("redweb", "hrwsi"):
        write_dataset(name, Path("raw") / name, scenes=24, height=96, width=128)
        settings = IngestSettings(side=64, validation_share=0.25)
        ingest_all(plan_ingest(name, f"raw/{name}", settings), "shards")
    config = with_changes(TrainConfig(), {**SMALL, "steps": options.steps})
    rows = tuple(
        Row(f"rate {k + 1}e-4", {"optimizer.decoder_lr": (k + 1) * 1e-4}) for k in range(options.trials)
    )
    tune = TuneConfig(concurrency=options.concurrency, pictures=0)
    return plan_sweep(
        "sweep", [AblationTable("rates", "", "", rows)], open_datasets(["shards"]), config, tune
    )


def warm_up(plan: SweepPlan) -> None:
    """Load all libraries into the file cache before the first measurement."""
    train(with_changes(plan.train, {"steps": 2}), plan.data, "warm-up", "runs", show=lambda line: None)


def trained_in_turn(plan: SweepPlan, concurrency: int) -> list[float]:
    """Seconds of each training, as a sweep's trial runs it."""
    threads = place_trials(concurrency, plan.train.most_workers, use_gpu=False).threads
    seconds = []
    for number, trial in enumerate(plan.trials):
        start = time.perf_counter()
        config, name = plan.config(trial), f"alone-{number}"
        run = tracking.start_run(name, "train", config, open_datasets(list(plan.data)))
        train(
            config, plan.data, name, "runs", show=lambda line: None,
            supervision=Supervision(run, lambda heeds: False, threads),
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
    return seconds


def swept(plan: SweepPlan) -> float:
    """Seconds of the whole sweep."""
    start = time.perf_counter()
    run_sweep(plan, "runs", show=lambda line: None)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
