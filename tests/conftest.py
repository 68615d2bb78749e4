"""Fixtures for all tests: a local Ray, an MLflow database, small prepared datasets."""

import atexit
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.mlflow_server import MlflowServer
from tests.support.small_disk import SmallDisk, mounted

# Tests say how Ray authenticates, never its default: that changes between versions. Loopback needs none.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ["RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR"] = "0"
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.25"
# By itself Ray lets everything else go first, the waiting test too.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
# As many processes run as there are cores: threads of their own would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each of the hundreds of processes that tests start would compile the project anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


SERVERS = {"ray_session", "mlflow_server"}
"""Fixtures that start processes: tests that use one are marked `ray`, as are modules that start Ray."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray; the longest tests first: started last, they would run alone at the end."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("ray")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def no_ray_by_accident(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the marker `ray` a test starts none: `make check` leaves those out."""

    def refuse(*args: object, **settings: object) -> None:
        raise RuntimeError("this test starts Ray: it needs the fixture ray_session or the marker ray")

    if "ray" in sys.modules and request.node.get_closest_marker("ray") is None:
        monkeypatch.setattr("ray.init", refuse)


_HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """What a command sets in its process, which a signal then ends, does not outlast its test."""
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    if "pipelines.cluster.signals" in sys.modules:
        from pipelines.cluster import signals

        for state in (signals._received, signals._unwound, signals._wake):
            state.clear()
        atexit.unregister(signals._leave)
        for number, handler in _HANDLERS.items():
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of this process's own, on loopback."""
    import ray

    machine = {"num_cpus": 2, "_node_ip_address": "127.0.0.1", "object_store_memory": 200 * 2**20}
    ray.init("local", **machine, include_dashboard=False, log_to_driver=False)
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: str, ray_session: None) -> Path:
    """An empty working directory with Ray and MLflow at hand."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(mlflow_database)
    return tmp_path


@pytest.fixture(scope="module")
def mlflow_server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server of the module's own."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow-server"), mlflow_template)
    server.start()
    yield server.address
    server.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 96 MiB."""
    with mounted(tmp_path) as disk:
        yield disk


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of two datasets in their layouts: redweb/ (no official split) and tartanair/ (metric)."""
    from datasets_prep.synthetic import write_dataset

    root = tmp_path_factory.mktemp("raw")
    write_dataset("redweb", root / "redweb", scenes=20, height=96, width=128)
    write_dataset("tartanair", root / "tartanair", scenes=4, height=96, width=128)
    return root


@pytest.fixture(scope="session")
def shards_folder(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two datasets, prepared: 64 pixels, four samples a shard."""
    from datasets_prep.plan.shards import plan_ingest
    from datasets_prep.settings import IngestSettings
    from tests.support.shards import prepare

    out = tmp_path_factory.mktemp("shards")
    settings = IngestSettings(side=64, samples_per_shard=4, validation_share=0.25)
    for name in ("redweb", "tartanair"):
        prepare(plan_ingest(name, str(raw_folder / name), settings), str(out))
    return out
