"""Fixtures for all tests: a local Ray, an MLflow database, small prepared datasets."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.mlflow_server import MlflowServer

# Tests say how Ray authenticates, never its default: that changes between versions. Loopback needs none.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ["RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR"] = "0"
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
# By itself Ray lets everything else go first, the waiting test too.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
os.environ["GIT_PYTHON_REFRESH"] = "quiet"


LONGEST = {
    "end_to_end", "faults", "test_sweep.py", "test_finetune.py", "test_training_options.py",
    "test_zero_shot.py",
}  # fmt: skip
"""Folders and files of tests that take minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: started last, they would run alone at the end."""
    items.sort(key=lambda item: not LONGEST & set(item.path.parts))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of this process's own, on loopback."""
    import ray

    ray.init(
        "local",
        num_cpus=2,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes ten seconds, copying it none."""
    shared = tmp_path_factory.getbasetemp().parent / "mlflow-template.db"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            from mlflow import MlflowClient

            fresh = shared.with_suffix(".fresh.db")
            MlflowClient(f"sqlite:///{fresh}").search_experiments()
            fresh.rename(shared)
    return shared


@pytest.fixture
def mlflow_database(mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow of the test's own, which MLFLOW_TRACKING_URI names; returns that URI."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture(scope="module")
def mlflow_server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server of the module's own."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow-server"), mlflow_template)
    server.start()
    yield server.address
    server.kill()


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of two datasets in their layouts: redweb/ (no official split) and tartanair/ (metric)."""
    from datasets_prep.synthetic import write_dataset

    root = tmp_path_factory.mktemp("raw")
    write_dataset("redweb", root / "redweb", scenes=20, height=96, width=128)
    write_dataset("tartanair", root / "tartanair", scenes=4, height=96, width=128)
    return root


@pytest.fixture(scope="session")
def shards_folder(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """The same two datasets, prepared: 64 pixels, four samples a shard."""
    from datasets_prep.ingest.run import ingest_all
    from datasets_prep.plan.shards import plan_ingest
    from datasets_prep.settings import IngestSettings

    out = tmp_path_factory.mktemp("shards")
    settings = IngestSettings(side=64, samples_per_shard=4, validation_share=0.25)
    for name in ("redweb", "tartanair"):
        ingest_all(plan_ingest(name, str(raw_folder / name), settings), str(out))
    return out
