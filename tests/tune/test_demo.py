"""The demo's miniatures are of all tables, and share variants as the paper's do."""

from pathlib import Path

import pytest

from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.synthetic import write_dataset
from tests.support.shards import prepare
from tune.ablations import DATASETS, PAPER
from tune.demo import plan_demo


@pytest.fixture
def demo_folder(tmp_path: Path) -> Path:
    settings = IngestSettings(side=64, validation_share=0.25)
    for name in DATASETS:
        raw = tmp_path / "raw" / name
        write_dataset(name, raw, scenes=8, height=64, width=96)
        prepare(plan_ingest(name, str(raw), settings), str(tmp_path / "shards"))
    return tmp_path


@pytest.mark.heavy
def test_a_miniature_of_each_table(demo_folder):
    plan = plan_demo(demo_folder, "demo")
    expected = [(table.name, table.number) for table in PAPER.values()]
    assert [(table.name, table.number) for table in plan.tables] == expected
    assert (len(plan.trials), len(plan.measured)) == (4, 2)
