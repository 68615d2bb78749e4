import sys
from typing import Any

import pytest
import ray

from pipelines.cluster import session
from pipelines.config import ConfigError
from tests.support.paths import REPOSITORY
from tests.support.sessions import running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "cluster.example:6379")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", *session.TRACKING_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_workers_of_a_cluster_learn_where_storage_is_but_get_no_key_to_it():
    assert session.carried_variables() == {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}


def test_workers_of_a_cluster_learn_where_and_as_whom_to_track(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    tracking = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "secret"}
    tracking["MLFLOW_TRACKING_URI"] = "http://mlflow.example:5000"
    for name, value in tracking.items():
        monkeypatch.setenv(name, value)
    assert session.carried_variables() == tracking


def test_a_local_ray_and_a_submitted_job_know_it_already(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert session.carried_variables() == {}
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    monkeypatch.delenv("RAY_ADDRESS")
    assert session.carried_variables() == {}


@pytest.mark.parametrize("found", ["10.0.0.1:6379", "127.0.0.1:9", None])
def test_a_cluster_that_was_started_on_this_machine_is_found(found, monkeypatch):
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **options: started.append(options))
    monkeypatch.setattr("pipelines.cluster.session.running_cluster", lambda: found)
    monkeypatch.setattr("pipelines.cluster.session.answers", lambda address: address.startswith("10."))
    monkeypatch.setattr("pipelines.cluster.session.require_answer", print)
    monkeypatch.setenv("RAY_ADDRESS", "")
    session.connect()
    assert session.on_cluster() == (found == "10.0.0.1:6379")
    assert len(started) == 1


def nodes_of(monkeypatch: pytest.MonkeyPatch, *resources: dict[str, float]) -> None:
    """A Ray of living nodes with these resources, and one that is dead."""
    dead: dict[str, Any] = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    monkeypatch.setattr(
        ray, "nodes", lambda: [dead, *({"Alive": True, "Resources": each} for each in resources)]
    )


@pytest.mark.parametrize(("cores", "workers", "expected"), [
    ([2], 1, 2),
    ([2], 2, 1),
    ([2], 8, 1),
    ([0], 1, 1),
    ([8, 8], 1, 8),
    ([8, 8], 2, 8),
    ([8, 8], 3, 4),
    # Three each are six, but the small node has no room for three.
    ([4, 2], 2, 2),
    ([0, 12, 4], 3, 4),
])  # fmt: skip
def test_workers_share_the_cores_such_that_all_find_room(cores, workers, expected, monkeypatch):
    nodes_of(monkeypatch, *({"CPU": float(count)} for count in cores))
    assert session.cpus_per_worker(workers) == expected
    assert session.room_for_workers(expected) >= min(workers, sum(cores))


def test_more_workers_than_this_machine_can_have_are_refused_at_once(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS")
    nodes_of(monkeypatch, {"CPU": 4.0, "GPU": 2.0})
    for workers, cores, use_gpu in ((4, 1, False), (2, 2, False), (2, 1, True)):
        session.require_room(workers, cores, use_gpu)
    with pytest.raises(ConfigError, match="workers: 8 are asked for, but this machine has CPU cores for 4"):
        session.require_room(8, 1, use_gpu=False)
    with pytest.raises(ConfigError, match="workers: 3 are asked for, but this machine has GPUs for 2"):
        session.require_room(3, 1, use_gpu=True)


def test_a_cluster_may_grow_and_is_waited_for(monkeypatch):
    nodes_of(monkeypatch, {"CPU": 0.0}, {"CPU": 4.0, "GPU": 4.0})
    said: list[str] = []
    session.require_room(4, 1, use_gpu=True, show=said.append)
    assert said == []
    session.require_room(8, 1, use_gpu=True, show=said.append)
    assert said == ["the cluster has GPUs for 4 of 8 workers now: waiting until it has more"]


@pytest.mark.slow
@pytest.mark.ray
def test_workers_import_nothing_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS")
    here, program = tmp_path / "here", tmp_path / "program.py"
    here.mkdir()
    for name in ("ray.py", "numpy.py", "dpt.py"):
        (here / name).write_text("raise RuntimeError('imported from the working directory')")
    program.write_text(
        "import os, ray\nfrom pipelines.cluster.session import connect\nconnect()\n"
        "@ray.remote\ndef where():\n    import dpt, numpy\n    return os.getcwd(), dpt.__file__\n"
        "print(*ray.get(where.remote()))\n"
    )
    with running([sys.executable, str(program)], {"PYTHONPATH": str(REPOSITORY)}, cwd=here) as (process, log):
        assert process.wait(300) == 0, log.read_text()
        assert f"{here} {REPOSITORY / 'dpt' / '__init__.py'}\n" in log.read_text()
