"""What the tests of sweeps share: two tiny variants on generated data, and what MLflow has of a sweep."""

import pytest

from pipelines.config import TrainConfig, TuneConfig
from pipelines.config_files import with_changes
from tune.ablations import AblationTable, Row

TINY = {
    "model.name": "dpt_tiny", "model.pretrained": False, "batch_size": 4, "crop": 64, "precision": "float32",
    "loader_workers": 0, "log_every": 2, "validate_every": 4, "checkpoint_every": 2, "steps": 4,
    "optimizer.backbone_lr": 1e-3, "optimizer.decoder_lr": 1e-3,
}  # fmt: skip
READOUT = "model.overrides.readout"


@pytest.fixture
def train_config() -> TrainConfig:
    return with_changes(TrainConfig(), TINY)


@pytest.fixture
def tune_config() -> TuneConfig:
    return TuneConfig(latency_runs=2, pictures=1)


@pytest.fixture
def tables() -> list[AblationTable]:
    """Miniatures of three tables: two trained variants and one that is only measured."""
    ignore, project, add = (Row(name, {READOUT: name.lower()}) for name in ("Ignore", "Project", "Add"))
    return [
        AblationTable("readout", "Table 7", "two readouts", (ignore, project)),
        AblationTable("resolution", "Figure 4", "one curve", (Row("Tiny", {READOUT: "ignore"}),)),
        AblationTable("speed", "Table 9", "two speeds", (project, add), trained=False),
    ]
