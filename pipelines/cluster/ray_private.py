"""What this project needs of Ray that Ray keeps private: all of it here, as read in Ray 2.60.0.

Ray may move any of it in a minor release; `pyproject.toml` admits no later one than was read. To admit one,
read again what is imported and named here, and run `tests/pipelines/cluster/test_ray_private.py`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import node, services, utils, worker
from ray._private.runtime_env import packaging, working_dir
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.services import canonicalize_bootstrap_address
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.job_config import JobConfig
from ray.util.placement_group import PlacementGroup

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

HEAD_NODE_RESOURCE = "node:__internal_head__"
"""Resource that the head node has 1.0 of, and no other node any."""

PACKAGING_LOGGERS = (packaging.__name__, working_dir.__name__)
"""Loggers that comment on every upload of a working directory."""


@contextmanager
def leaving_signals_alone() -> Iterator[None]:
    """Ray leaves no handler of SIGTERM from the block, and what it starts leaves this process's group.

    A scheduler's SIGTERM to the group would end Ray before a run has saved its checkpoint.
    """
    processes: Any = services  # whose class is replaced by a function
    start, set_handler = processes.ConsolePopen, utils.set_sigterm_handler

    def start_apart(*arguments: Any, preexec_fn: Callable[[], None], **options: Any) -> Any:
        def prepare() -> None:
            os.setpgrp()
            preexec_fn()

        return start(*arguments, preexec_fn=prepare, **options)

    processes.ConsolePopen, utils.set_sigterm_handler = start_apart, lambda handler: None
    try:
        yield
    finally:
        processes.ConsolePopen, utils.set_sigterm_handler = start, set_handler
        if threading.current_thread() is threading.main_thread():
            # Ray's C++ has set one below Python's, which prints the stack before it calls Python's.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


@contextmanager
def starting_what_is_used() -> Iterator[None]:
    """A Ray that is started in the block has neither dashboard nor autoscaler nor log monitor.

    These take four seconds of CPU. A local Ray neither grows nor prints its workers' logs; that of
    `ray start --head` has all of them.
    """
    unused = {
        (services, "start_api_server"): lambda *_, **__: ("", None),
        (node.Node, "start_monitor"): lambda self: None,
        (node.Node, "start_log_monitor"): lambda self: None,
    }
    before = {place: getattr(*place) for place in unused}
    try:
        for place, replacement in unused.items():
            setattr(*place, replacement)
        yield
    finally:
        for place, function in before.items():
            setattr(*place, function)


def silence_pools_of_actors() -> None:
    """A pool of actors of Ray Data starts, and ends on a signal, without lines of Ray on the screen.

    Ray's C++ prints once that an actor's "constructor arguments in the object store" may be lost. It says so
    of every pool, though the pool keeps its arguments (https://github.com/ray-project/ray/issues/57733):
    the first one starts with standard error closed. At its end Ray prints that tasks of the actors that it
    killed failed "and will be retried".
    """
    from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

    pool: Any = ActorPoolMapOperator
    start = pool._start_actor

    def start_first(self: Any, *arguments: Any) -> Any:
        pool._start_actor = start
        kept = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            return start(self, *arguments)
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    pool._start_actor = start_first
    show = worker.print_to_stdstream

    def show_failures(data: dict[str, Any], ignore_prefix: bool) -> None:
        if not any("because it was killed by `ray.kill`" in line for line in data["lines"]):
            show(data, ignore_prefix)

    worker.print_to_stdstream = show_failures


def job_without_working_directory() -> JobConfig:
    """A job whose workers find this package where it is here, and import nothing from the working directory.

    Ray puts that first in their search path, so that a `ray.py` or `numpy.py` in it would be theirs.
    """
    root = Path(__file__).parents[2]
    job = JobConfig(_py_driver_sys_path=[] if root.name == "site-packages" else [str(root)])
    job._client_job = True  # Ray's client, too, has no working directory that workers know
    return job


def leave_sigint_alone(trainer: Any) -> None:
    """Keep a `trainer` of Ray Train from replacing the handler of SIGINT for good."""
    trainer._register_sigint_handler = lambda controller: None


def without_idle_actors(trainer: Any, autoscales: bool) -> None:
    """Keep a `trainer` of Ray Train from starting actors that do nothing for us, each a process of seconds.

    One hands out Ray Data's datasets: ours are none. One removes the placement group of a controller that
    was killed: `fit` then raises, and it goes with the job, or by `orphaned_placement_groups`. One asks the
    autoscaler for room, and the ranks wait for it: only a cluster `autoscales`.
    """
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy

    run = trainer._initialize_and_run_controller

    def run_without(*, callbacks: list[Any], scaling_policy: Any, **others: Any) -> Any:
        idle = (DatasetsCallback, PlacementGroupCleanerCallback)
        callbacks = [callback for callback in callbacks if not isinstance(callback, idle)]
        if not autoscales and isinstance(scaling_policy, FixedScalingPolicy):
            for request in ("_send", "_maybe_send", "_cancel"):
                setattr(scaling_policy, f"{request}_resource_request", lambda: None)
        return run(callbacks=callbacks, scaling_policy=scaling_policy, **others)

    trainer._initialize_and_run_controller = run_without


def report_logger() -> str:
    """Name of the logger that repeats every `ray.train.report`: Ray Train names it by its file."""
    from ray.train.v2._internal.execution import context

    return str(context.__file__)


def sweep_state_logger() -> str:
    """Name of the logger that says, in a traceback, that Ray Tune could not save its state of a sweep."""
    from ray.tune.execution import experiment_state

    return experiment_state.__name__


def checkpoint_snapshot() -> str:
    """Name of the file in a run's folder in which Ray Train lists the checkpoints that were reported.

    If one of them is gone, Ray Train does not start the run again.
    """
    from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

    return CHECKPOINT_MANAGER_SNAPSHOT_FILENAME


def running_cluster() -> str | None:
    """Address, `HOST:PORT`, of the cluster of RAY_ADDRESS or of `ray start` on this machine; None without."""
    address: str | None = canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    return address


def inside_submitted_job() -> bool:
    """Whether this process is the entry point of a job that was submitted to a cluster."""
    return RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ


def job_metadata() -> dict[str, str]:
    """`job_submission_id` and what `--metadata-json` gave of the job that this process is; else empty."""
    metadata: dict[str, str] = _job_config().get("metadata", {})
    return metadata


def job_package() -> str | None:
    """Address of the zip file that this job's working directory is of, `gcs://_ray_pkg_DIGEST.zip`."""
    package: str | None = _job_config().get("runtime_env", {}).get("working_dir")
    return package


def _job_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}"))
    return config


def server_version(client: JobSubmissionClient) -> str | None:
    """Ray's version on the cluster whose job server a `client` is connected to."""
    version: str | None = client._server_ray_version
    return version


def orphaned_placement_groups() -> list[PlacementGroup]:
    """The placement groups of this job whose creator is an actor that is dead.

    Ray removes them with the job. The public `placement_group_table` does not have their creator.
    """
    job = ray.get_runtime_context().get_job_id()
    tables = state._connect_and_get_accessor().get_placement_group_table()
    groups = [PlacementGroupTableData.FromString(table) for table in tables]
    return [
        PlacementGroup(ray.PlacementGroupID(group.placement_group_id))
        for group in groups
        if group.creator_job_id.hex() == job
        and group.creator_actor_dead
        and not ray.ActorID(group.creator_actor_id).is_nil()
        and not group.is_detached
        and group.state != PlacementGroupTableData.REMOVED
    ]


def restarted_actors() -> dict[str, tuple[str, int]]:
    """The actors of this job that Ray has started again: id → name of the class, how often.

    The public `list_actors` needs a dashboard.
    """
    table = state.actor_table(None, ray.JobID.from_hex(ray.get_runtime_context().get_job_id()))
    found = {name: (actor["ActorClassName"], actor["NumRestarts"]) for name, actor in table.items()}
    return {name: (kind, restarts) for name, (kind, restarts) in found.items() if restarts}
