"""Every option of training in short real runs: it finishes, and a resumed run is the same bit for bit."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.config import TrainConfig
from pipelines.tracking import runs as tracking
from pipelines.train import train
from pipelines.training.checkpoint import digest_of

pytestmark = [pytest.mark.ray, pytest.mark.long]

STEPS, RESUMED_AT = 6, 3
Options = Mapping[str, Any]

PLAIN: Options = {
    "model": {"name": "dpt_tiny", "pretrained": False},
    "optimizer": {"backbone_lr": 1e-4, "decoder_lr": 1e-4, "objective": "average"},
    "steps": STEPS, "checkpoint_every": RESUMED_AT, "validate_every": STEPS, "log_every": 1,
    "batch_size": 4, "crop": 64, "precision": "float32", "loader_workers": 0,
}  # fmt: skip

EXACTLY: Options = {"precision": "float64"}
"""For runs that compute the same in another order: in float32 losses differ by 3e-3 after six steps."""

NEUTRAL: Mapping[str, Options] = {
    "channels-last": {"channels_last": True},
    "activation checkpointing": {"activation_checkpointing": True},
    "accumulation": {"optimizer": {"accumulate": 3}},
    "two copies": {"workers": 2},
    "two shards": {"workers": 2, "parallel": "fsdp"},
    "one shard": {"parallel": "fsdp"},
    "shards of micro-batches, with an average": {
        "workers": 2, "parallel": "fsdp", "activation_checkpointing": True,
        "optimizer": {"accumulate": 2, "ema": 0.9},
    },
}  # fmt: skip
"""Options that change how the same numbers are computed."""

OTHER: Mapping[str, Options] = {
    "moving average": {"optimizer": {"ema": 0.9}},
    "clipping": {"optimizer": {"clip_norm": 0.01}},
    "clipped shards of many objectives": {
        "workers": 2,
        "parallel": "fsdp",
        "optimizer": {"objective": "multi_objective", "clip_norm": 0.01},
    },
    "cosine": {"optimizer": {"schedule": "cosine", "warmup": 2}},
    "poly": {"optimizer": {"schedule": "poly"}},
    "bfloat16": {"precision": "bfloat16", "upsampling": "bfloat16"},
    "many objectives": {"optimizer": {"objective": "multi_objective"}, "workers": 2},
    "stratified": {"sampling": "stratified"},
    "two stages": {"stages": [{"steps": 4, "datasets": ["redweb"]}]},
    "Ray Data": {"executor": "ray"},
    "a student on Ray Data": {
        "workers": 2,
        "executor": "ray",
        "perturb": {"datasets": ["tartanair"]},
        "loss": {"trims": {"tartanair": 0.1}, "gradient_weights": {"tartanair": 0.0}},
    },
}
"""Options that change the curve."""

EVERYTHING: Options = {
    "workers": 2, "channels_last": True, "activation_checkpointing": True, "loader_workers": 1,
    "optimizer": {"accumulate": 2, "ema": 0.9, "clip_norm": 0.01, "schedule": "cosine", "warmup": 2},
}  # fmt: skip
SHARDED: Options = {**EVERYTHING, "parallel": "fsdp"}


def config(options: Options) -> TrainConfig:
    optimizer = {**PLAIN["optimizer"], **options.get("optimizer", {})}
    return TrainConfig(**{**PLAIN, **options, "optimizer": optimizer})


class Runs:
    """Trains, with MLflow in the test's database."""

    def __init__(self, folder: Path, shards: Path) -> None:
        self._folder, self._shards = folder, str(shards)

    def losses(self, name: str, options: Options, resume: bool = False) -> dict[int, float]:
        result = train(config(options), [self._shards], name, str(self._folder), resume, show=print)
        history = MlflowClient().get_metric_history(result.run.run_id, "loss")
        assert sorted(point.step for point in history) == list(range(1, STEPS + 1))
        return {point.step: point.value for point in history}

    def check_resumed(self, name: str, options: Options) -> None:
        """The second half, trained again, must end with the same files."""
        last = self._folder / name / f"step_{STEPS:08d}"
        before = {path.name: digest_of(path) for path in last.iterdir() if path.name != "state.json"}
        shutil.rmtree(last)
        self.losses(name, options, resume=True)
        assert {path.name: digest_of(path) for path in last.iterdir() if path.name != "state.json"} == before
        assert {"weights.safetensors", "optimizer.safetensors"} <= before.keys()


@pytest.fixture
def runs(tmp_path, shards_folder, monkeypatch, mlflow_database, ray_session) -> Runs:
    monkeypatch.setattr("pipelines.train.cpus_per_worker", lambda workers: 1)
    # Takes seconds a run, and is another test's matter.
    monkeypatch.setattr(tracking, "log_model", lambda run, folder: "models:/none")
    return Runs(tmp_path, shards_folder)


@pytest.mark.parametrize(
    "options",
    [pytest.param(EVERYTHING, id="copies", marks=pytest.mark.slow), pytest.param(SHARDED, id="shards")],
)
def test_everything_at_once(runs, options):
    runs.losses("whole", options)
    runs.check_resumed("whole", options)


@pytest.mark.slow
@pytest.mark.parametrize("options", NEUTRAL.values(), ids=NEUTRAL)
def test_an_option_that_changes_no_number(runs, options):
    options = {**options, **EXACTLY}
    plain, found = runs.losses("plain", EXACTLY), runs.losses("other", options)
    assert found == pytest.approx(plain, abs=1e-6)
    runs.check_resumed("other", options)


@pytest.mark.slow
@pytest.mark.parametrize("options", OTHER.values(), ids=OTHER)
def test_an_option_that_changes_the_curve(runs, options):
    runs.losses("other", options)
    runs.check_resumed("other", options)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["model", "regions"])
@pytest.mark.parametrize(
    "options",
    [{}, {"workers": 2, "parallel": "fsdp"}, {"optimizer": {"objective": "multi_objective"}}],
    ids=["copy", "shards", "many objectives"],
)
def test_a_compiled_model_learns_what_others_learn(runs, options, how):
    options = {**options, **EXACTLY}
    compiled = {**options, "compile": how}
    plain, found = runs.losses("plain", options), runs.losses("compiled", compiled)
    assert found == pytest.approx(plain, abs=1e-6)
    runs.check_resumed("compiled", compiled)
