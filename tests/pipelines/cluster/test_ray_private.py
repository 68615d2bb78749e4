"""What is private to Ray is where `ray_private` looks for it, and does what it is used for."""

import importlib.metadata
import inspect
import logging
import os
import signal
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import cloudpickle
import pytest
import ray
import ray.dashboard.modules.dashboard_sdk as dashboard
import ray.job_submission
from ray._private import worker
from ray.dashboard.modules.job.job_supervisor import JobSupervisor
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
from ray.train.v2._internal.execution import context
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from pipelines.cluster import ray_private
from tests.support.paths import REPOSITORY


def test_the_version_that_was_read_is_installed_and_the_next_one_is_not_admitted():
    version = importlib.metadata.version("ray")
    major, minor, _ = version.split(".")
    assert f"Ray {version}." in str(ray_private.__doc__)
    bound = f">={major}.{minor},<{major}.{int(minor) + 1}"
    requirements = (REPOSITORY / "pyproject.toml").read_text()
    assert all(f'"ray[{parts}]{bound}"' in requirements for parts in ("data,default", "train,tune"))


def test_no_other_module_reaches_into_ray():
    private = ("ray._private", "ray.train.v2._internal", "ray.core.generated", "_server_ray_version")
    found = {
        path.name
        for package in ("dpt", "datasets_prep", "pipelines", "tune")
        for path in (REPOSITORY / package).rglob("*.py")
        if any(name in path.read_text() for name in private)
    }
    assert found == {"ray_private.py"}


def test_a_cluster_is_found_by_its_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head.example:6379")
    monkeypatch.setattr("ray._private.services.resolve_ip_for_localhost", lambda host: host)
    assert ray_private.running_cluster() == "head.example:6379"


def test_a_job_is_known_by_what_ray_sets_for_it(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert not ray_private.inside_submitted_job()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert ray_private.inside_submitted_job()


def test_a_job_has_the_metadata_and_the_code_that_its_supervisor_gives_it(monkeypatch):
    supervisor = SimpleNamespace(
        _metadata={"job_submission_id": "raysubmit_1", "git_commit": "0a1b"},
        _get_driver_runtime_env=lambda _: {"working_dir": "gcs://_ray_pkg_0a1b.zip"},
    )
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address_or_die", lambda *_: "head:6379")
    monkeypatch.setattr(
        "ray._private.worker._global_node", SimpleNamespace(_ray_params=SimpleNamespace(temp_dir=""))
    )
    for name, value in JobSupervisor._get_driver_env_vars(supervisor, False).items():
        monkeypatch.setenv(name, value)
    assert ray_private.job_metadata() == supervisor._metadata
    assert ray_private.job_package() == "gcs://_ray_pkg_0a1b.zip"


def test_the_client_keeps_the_clusters_version(monkeypatch):
    content = {"version": "4", "ray_version": "3.2.1", "ray_commit": "x", "session_name": "y"}
    answer = SimpleNamespace(status_code=200, json=lambda: content, raise_for_status=lambda: None)
    monkeypatch.setattr(dashboard.SubmissionClient, "_do_request", lambda *_, **__: answer)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert ray_private.server_version(ray.job_submission.JobSubmissionClient()) == "3.2.1"


def test_the_loggers_are_those_that_speak():
    known: dict[str, Any] = logging.root.manager.loggerDict
    assert set(ray_private.PACKAGING_LOGGERS) <= set(known)
    assert "getLogger(__file__)" in inspect.getsource(context)
    assert ray_private.sweep_state_logger() in known


@pytest.mark.usefixtures("ray_session")
def test_the_head_node_has_its_resource():
    (node,) = ray.nodes()
    assert node["Resources"][ray_private.HEAD_NODE_RESOURCE] == 1.0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_actor_that_ray_started_again_is_known_by_its_class():
    class Victim:
        def pid(self) -> int:
            return os.getpid()

    before = ray_private.restarted_actors()
    victim: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Victim).remote()
    first = ray.get(victim.pid.remote())
    assert ray_private.restarted_actors() == before
    os.kill(first, signal.SIGKILL)
    assert ray.get(victim.pid.remote()) != first
    [(name, restarts)] = [
        known for actor, known in ray_private.restarted_actors().items() if actor not in before
    ]
    assert (name.rpartition(".")[2], restarts) == ("Victim", 1)


def test_rays_processes_are_out_of_reach_of_signals_to_this_group():
    from ray._private import services, utils

    before, handler = services.ConsolePopen, signal.getsignal(signal.SIGTERM)
    with ray_private.leaving_signals_alone():
        started = services.start_ray_process(["sleep", "60"], "raylet", fate_share=False).process
    try:
        assert os.getpgid(started.pid) == started.pid != os.getpgid(0)
        assert services.ConsolePopen is before
        with ray_private.leaving_signals_alone():
            utils.set_sigterm_handler(lambda *_: None)
        assert signal.getsignal(signal.SIGTERM) == handler
    finally:
        started.kill()
        started.wait()


def test_ray_prints_no_warning_of_the_first_pool_of_actors_but_all_that_comes_later(monkeypatch, capfd):
    def start(self: Any, labels: dict[str, str], logical_actor_id: str) -> str:
        os.write(2, b"Actor has constructor arguments in the object store\n")
        return logical_actor_id

    parameters = inspect.signature(ActorPoolMapOperator._start_actor).parameters
    monkeypatch.setattr(ActorPoolMapOperator, "_start_actor", start)
    ray_private.silence_pools_of_actors()
    operator = object.__new__(ActorPoolMapOperator)
    assert [operator._start_actor({}, name) for name in ("first", "second")] == ["first", "second"]
    assert capfd.readouterr().err == "Actor has constructor arguments in the object store\n"
    assert list(parameters) == ["self", "labels", "logical_actor_id"]


def test_ray_prints_failures_but_not_of_what_it_killed_itself(monkeypatch, capfd):
    monkeypatch.setattr(ActorPoolMapOperator, "_start_actor", ActorPoolMapOperator._start_actor)
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    ray_private.silence_pools_of_actors()
    errors = ["The actor is dead because it was killed by `ray.kill`.", "killed due to memory pressure (OOM)"]
    answers = iter([(None, {"job_id": None, "error_message": error}) for error in errors])

    def poll() -> Any:
        with suppress(StopIteration):
            return next(answers)
        raise ConnectionError

    here = MagicMock()
    here.gcs_error_subscriber.poll, here.current_job_id.binary = poll, lambda: b"1"
    worker.listen_error_messages(here, threading.Event())
    [line] = capfd.readouterr().out.splitlines()
    assert errors[1] in line


def test_a_ray_has_what_is_used():
    from ray._private.node import Node

    class Head(Node):
        _ray_params = MagicMock(no_monitor=False, ray_client_server_port=None, include_dashboard=None)
        _gcs_address = _gcs_client = None
        gcs_address = "here:1"
        __init__ = lambda self: None  # noqa: E731
        __getattr__ = start_gcs_server = _write_cluster_info_to_kv = get_gcs_client = MagicMock()
        all_processes = MagicMock(spec=dict)
        get_log_file_names = MagicMock(return_value=("out", "err"))

    with ray_private.starting_what_is_used():
        Head().start_head_processes()
        Head().start_log_monitor()
    Head.all_processes.__setitem__.assert_not_called()


@pytest.mark.parametrize("autoscales", [False, True])
def test_ray_train_starts_what_is_used(monkeypatch, autoscales):
    given: dict[str, Any] = {}
    monkeypatch.setattr("ray.train.v2.api.data_parallel_trainer.ObjectRefWrapper", lambda function: function)
    run = "_initialize_and_run_controller"
    monkeypatch.setattr(
        DataParallelTrainer, run, lambda _, **named: given.update(named) or SimpleNamespace(error=None)
    )
    asked: list[int] = []
    module = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
    monkeypatch.setattr(f"{module}.get_or_create_autoscaling_coordinator", lambda: asked.append(1))

    def callbacks_of(trainer: DataParallelTrainer) -> set[str]:
        trainer.fit()
        return {type(callback).__name__ for callback in given["callbacks"]}

    trainer = DataParallelTrainer(lambda: None)
    before = callbacks_of(trainer)
    ray_private.without_idle_actors(trainer, autoscales)
    assert before - callbacks_of(trainer) == {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    policy = cloudpickle.loads(cloudpickle.dumps(given["scaling_policy"]))  # on its way to the controller
    policy.after_controller_start(SimpleNamespace(run_id="mine"))
    policy.make_decision_for_non_running_worker_group()
    policy.before_controller_abort()
    assert bool(asked) == autoscales


def test_ray_train_leaves_the_handler_of_sigint_alone():
    trainer, before = DataParallelTrainer(lambda: None), signal.getsignal(signal.SIGINT)
    assert callable(trainer._register_sigint_handler)
    ray_private.leave_sigint_alone(trainer)
    trainer._register_sigint_handler(None)
    assert signal.getsignal(signal.SIGINT) == before
