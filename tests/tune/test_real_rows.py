"""Every row of Tables 6 to 8 at its real size: it builds, takes a step of training, and reports AbsRel.

Weights are random and crops small: what is proven is that the full tables can be launched, not their figures.
Slow: all of them as one sweep, ten minutes and 30 GB of checkpoints.
"""

import copy
import math
import sys

import pytest
import torch
import yaml

import dpt
from datasets_prep.manifest import open_datasets
from pipelines.config import TrainConfig
from pipelines.config_files import with_changes
from pipelines.evaluation.relative_depth import relative_share
from pipelines.loading.batches import Batch
from pipelines.training.loop import build_model
from pipelines.training.optimizer import create_optimizer
from pipelines.training.ranks import Ranks
from pipelines.training.step import TrainingStep
from tests.support.models import batch_of
from tests.support.sessions import running
from tune import records
from tune.ablations import PAPER
from tune.plan import find_variants
from tune.records import child_runs, find_sweep

CROP = 64
SHORT = {"model.pretrained": False, "batch_size": 1, "crop": CROP, "precision": "float32", "steps": 1}
BASE = with_changes(TrainConfig(), SHORT)
VARIANTS = find_variants([PAPER[name] for name in ("skip", "readout", "backbone")], BASE)
QUICK = {"dpt_resnet50", "dpt_base.taps-9_10_11_12.readout-ignore"}


def test_all_fifteen_rows_are_thirteen_variants():
    assert len(VARIANTS) == 13
    assert sum(len(variant.rows) for variant in VARIANTS) == 15


@pytest.mark.heavy
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, marks=[] if variant.key in QUICK else pytest.mark.slow, id=variant.key)
        for variant in VARIANTS
    ],
)
def test_the_row_takes_a_step_and_reports(variant, shards_folder):
    config = variant.config(BASE, seed=0)
    torch.manual_seed(0)
    model = build_model(config.model, config.crop_size).train()
    wake(model)
    before = copy.deepcopy(next(model.head.parameters())).detach()
    step = TrainingStep(model, model, create_optimizer(model, config), None, config, ["x"], Ranks())
    result = step(batch(), 1)
    assert not result.skipped
    assert math.isfinite(result.loss.item())
    assert not torch.equal(next(model.head.parameters()), before), "the step changed nothing"
    (dataset, _) = open_datasets([str(shards_folder)])
    sums = relative_share(model, dataset, 0, 1, config.val_split, config.caps, (CROP, None))
    assert math.isfinite(sums.result()["abs_rel"])


@pytest.mark.slow
def test_the_papers_tables_are_one_sweep(shards_folder, mlflow_database, tmp_path):
    """`dpt tune` on a Ray of its own, whose store holds the largest models; cut short after a step each."""
    config = tmp_path / "config.yaml"
    often = {"log_every": 1, "validate_every": 1, "checkpoint_every": 1}
    short = with_changes(BASE, {"loader_workers": 0, **often})
    tune = {"concurrency": 1, "latency_runs": 1, "pictures": 1}
    config.write_text(yaml.safe_dump({"train": short.model_dump(mode="json"), "tune": tune}))
    where = ("--data", str(shards_folder), "--config", str(config), "--storage", str(tmp_path / "runs"))
    with running([sys.executable, "-m", "tune.cli", "tune", "--name", "paper", *where]) as (process, log):
        assert process.wait(1800) == 0, log.read_text()
    parent = find_sweep("paper")
    assert parent is not None
    runs = child_runs(parent.info.run_id)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for table in PAPER.values():
        titles = [run.data.tags.get(records.table_tag(table.name)) for run in runs]
        assert sorted(filter(None, titles)) == sorted(row.title for row in table.rows)
    for variant in VARIANTS:
        (run,) = (run for run in runs if run.data.tags[records.VARIANT] == variant.key)
        assert math.isfinite(run.data.metrics[records.abs_rel(records.MEAN)])
    speed = [run for run in runs if records.table_tag("speed") in run.data.tags]
    assert all(run.data.metrics[records.LATENCY] > 0 for run in speed)


def wake(model: dpt.DPT) -> None:
    """With random weights the last ReLU may be at 0 everywhere, and pass no gradient."""
    last = [module for module in model.head.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    assert last.bias is not None
    torch.nn.init.ones_(last.bias)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 255, (1, CROP, CROP, 3), dtype=torch.uint8, generator=generator)
    return batch_of(images, torch.rand(1, CROP, CROP, generator=generator).half(), [0])
