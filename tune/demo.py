"""The last step of `dpt demo`: a miniature of each of the paper's tables on the datasets of the demo.

Two variants a table, with a transformer of eight layers and 64 channels that trains in seconds. They show how
sweeps work; which variant wins after some steps on rendered scenes has no meaning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from datasets_prep.manifest import open_datasets
from pipelines.config import TuneConfig
from pipelines.config_files import load_experiment, with_changes
from tune.ablations import DATASETS, PAPER, AblationTable, Row
from tune.plan import SweepPlan, plan_sweep
from tune.report.page import write_report
from tune.report.terminal import print_tables
from tune.sweep import run_sweep

_TINY = {
    "model.name": "dpt_tiny",
    "model.overrides.backbone_arguments": {"img_size": 64, "embed_dim": 64, "depth": 8, "num_heads": 2},
    "model.overrides.taps": [2, 4, 6, 8],
}
_IGNORE = {"model.overrides.readout": "ignore"}
_BACKBONES = (Row("ViT-Tiny", _TINY), Row("ResNet18", {"model.name": "dpt_small"}))


def _miniature(name: str, caption: str, *rows: Row) -> AblationTable:
    table = PAPER[name]
    return AblationTable(name, table.number, f"Miniature: {caption}", rows, trained=table.trained)


MINIATURES = (
    _miniature(
        "skip",
        "skip connections to different encoder layers, counted from 1",
        Row("Tiny {2, 4, 6, 8}", {**_TINY, **_IGNORE}),
        Row("Tiny {5, 6, 7, 8}", {**_TINY, **_IGNORE, "model.overrides.taps": [5, 6, 7, 8]}),
    ),
    _miniature(
        "readout",
        "what the Reassemble operation does with the readout token",
        Row("Ignore", {**_TINY, **_IGNORE}),
        Row("Project", _TINY),
    ),
    _miniature("backbone", "a transformer and a convolutional network, with the same decoder", *_BACKBONES),
    _miniature(
        "resolution",
        "inference at higher resolutions than that of training: change of AbsRel in percent",
        *_BACKBONES,
    ),
    _miniature("speed", "parameters, and latency of one square image with sides as in training", *_BACKBONES),
)

_QUICK = {
    "model.overrides": {}, "steps": 120, "crop": 64, "half_size_share": 0.0, "batch_size": 8, "log_every": 20,
    "validate_every": 60, "checkpoint_every": 60, "optimizer.warmup": 20, "optimizer.backbone_lr": 2e-3,
    "optimizer.decoder_lr": 2e-3,
}  # fmt: skip


def plan_demo(out: Path, config: str) -> SweepPlan:
    """The sweep over the miniatures, for a demo in the folder `out` with that `config` file."""
    train = with_changes(load_experiment(config).train, _QUICK)
    datasets = open_datasets([str(out / "shards" / name) for name in DATASETS])
    name = f"demo-tables-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    return plan_sweep(name, MINIATURES, datasets, train, TuneConfig(concurrency=2, latency_runs=20))


def run_demo_sweep(out: Path, config: str, say: Callable[[str], None]) -> Path:
    """Run the sweep over the miniatures, print its tables and write its report; returns the page's path.

    The demo is in the folder `out`; its `config` file is a path or a built-in one; `say` takes progress.
    """
    plan = plan_demo(out, config)
    run_sweep(plan, str(out / "runs"), show=say)
    print_tables(plan.name, Console(file=sys.stdout, width=160))
    report = write_report(plan.name, out / "report")
    say(f"{len(plan.trials)} variants in miniatures of the paper's tables: {report}")
    return report
