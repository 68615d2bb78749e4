"""What Ray's, Prometheus' and MLflow's own tools see of a training."""

import re
import time
import urllib.request
from pathlib import Path

import pytest
import ray
from mlflow import MlflowClient
from ray.train import Result
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from pipelines.config import TrainConfig
from pipelines.tracking import runs as tracking
from pipelines.train import train
from pipelines.training.checkpoint import digest_of

pytestmark = [pytest.mark.ray, pytest.mark.long]

CONFIG = TrainConfig(
    model={"name": "dpt_tiny", "pretrained": False},
    optimizer={"objective": "average"},
    **{"steps": 4, "checkpoint_every": 1, "validate_every": 2, "log_every": 2, "keep_checkpoints": 1},
    **{"batch_size": 2, "crop": 64, "precision": "float32", "loader_workers": 0},
)
EXPORTED_WITHIN = 60.0
"""Seconds; Ray's processes export every ten."""


def prometheus() -> str:
    """What Ray's only node answers to Prometheus."""
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_training_is_seen_by_ray_prometheus_and_mlflow(
    ray_session, mlflow_database, shards_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipelines.train.cpus_per_worker", lambda workers: 1)
    monkeypatch.setattr(tracking, "log_model", lambda run, folder: "models:/none")
    results: list[Result] = []
    fit = DataParallelTrainer.fit
    monkeypatch.setattr("pipelines.train.DataParallelTrainer.fit", lambda self: results.append(fit(self)))

    def checkpoints() -> dict[str, str]:
        return {path.parent.name: digest_of(path) for path in tmp_path.rglob("weights.safetensors")}

    lines: list[str] = []
    run = train(CONFIG, [str(shards_folder)], "mine", str(tmp_path), show=lines.append).run
    assert lines[0] == "new run mine: 4 steps of 2 images; a line every 2"
    [result] = results
    assert result.checkpoint is not None
    assert Path(result.checkpoint.path) == tmp_path / "mine" / "step_00000004"
    assert result.metrics is not None
    assert result.metrics["step"] == 4
    assert result.metrics["abs_rel"] > 0
    kept = checkpoints()
    assert len(set(kept.values())) == len(kept) <= 2, "no copies"
    # Checkpoints that Ray Train knows of are gone, and the run starts again nevertheless.
    longer = CONFIG.model_copy(update={"steps": 6})
    train(longer, [str(shards_folder)], "mine", str(tmp_path), True, allow_changes=True, show=lines.append)
    assert "resumed run mine: 6 steps of 2 images; a line every 2" in lines
    assert results[1].checkpoint is not None
    assert Path(results[1].checkpoint.path).name == "step_00000006"

    entity = MlflowClient().get_run(run.run_id)
    assert 0 < entity.data.metrics["system/system_memory_usage_percentage"] <= 100
    assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= entity.data.metrics.keys()
    assert entity.data.tags["node_0"].endswith("no GPU")

    deadline, wanted = (
        time.monotonic() + EXPORTED_WITHIN,
        'ray_dpt_train_samples{.*dataset="redweb".*run="mine"',
    )
    while not re.search(wanted, text := prometheus()) and time.monotonic() < deadline:
        time.sleep(1)
    assert re.search(wanted, text)
    # The process before the resumption may still be listed beside the one after it.
    losses = re.findall(r'^ray_dpt_train_loss\{.*run="mine".*\} (\S+)$', text, re.MULTILINE)
    assert any(float(loss) == pytest.approx(entity.data.metrics["loss"]) for loss in losses)
