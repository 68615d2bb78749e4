"""`dpt submit -- train …`: a command of `dpt` as a job on a cluster, from a laptop.

The job is submitted to Ray's job server, as by `ray job submit`. Added are checks before anything starts,
each a one-line error, of what otherwise shows minutes later in the log of a node: another version of Ray, a
package with data in it, a bucket or an MLflow server that the cluster cannot reach.
"""

from __future__ import annotations

import asyncio
import getpass
import glob
import json
import logging
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from datasets_prep.errors import UserError
from pipelines.cluster.credentials import without_credentials
from pipelines.cluster.package import is_below, write_package
from pipelines.cluster.probe import MARK, Findings, Targets
from pipelines.cluster.ray_private import PACKAGING_LOGGERS, server_version
from pipelines.cluster.session import TRACKING, TRACKING_VARIABLES
from pipelines.cluster.signals import Stopped
from pipelines.config_files import CONFIG_FOLDER
from pipelines.tracking.source_commit import COMMIT_VARIABLE, source_commit, tracked_files

TREE = Path(__file__).parents[1]
_ADDRESS = "RAY_API_SERVER_ADDRESS"
_UNTRACKED = {"generate", "datasets", "prepare", "inspect", "config"}
_PROBE_SECONDS = 300
_MONITOR_SECONDS = 2.0
_DELETIONS = 2
_NOISY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", *PACKAGING_LOGGERS)


class SubmitError(UserError):
    """A job cannot be submitted or followed; the message is the reason, in one line."""


class Cluster:
    """A cluster's job server.

    Args:
        address: `http://HOST:8265`, or without the scheme.

    Raises:
        SubmitError: if it does not answer, refuses the token, or runs another version of Ray.
    """

    def __init__(self, address: str) -> None:
        self.address = address if "://" in address else f"http://{address}"
        # In Ray's client the variable takes precedence over the argument.
        os.environ[_ADDRESS] = self.address
        try:
            self.client = JobSubmissionClient(self.address)
            version = server_version(self.client)
        except AuthenticationError as error:
            raise SubmitError(
                f"{self.address} refuses the token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a "
                "file with the cluster's (default: ~/.ray/auth_token)"
            ) from error
        except ConnectionError as error:
            raise SubmitError(
                f"no cluster answers at {self.address}; is the tunnel open? (`ray dashboard cluster.yaml`)"
            ) from error
        except (requests.RequestException, RuntimeError, KeyError) as error:
            raise SubmitError(f"{self.address} is not a job server of Ray: {_one_line(error)}") from error
        if version != ray.__version__:
            raise SubmitError(
                f"the cluster runs Ray {version}, this machine {ray.__version__}: make them one"
            )

    def start(self, command: Sequence[str], runtime_env: Mapping[str, Any]) -> str:
        """Start the words of `command` as a job in `runtime_env` and return the job's id.

        Raises:
            SubmitError: if the job server refuses it.
        """
        try:
            return self.client.submit_job(entrypoint=shlex.join(command), runtime_env=dict(runtime_env))
        except RuntimeError as error:
            raise SubmitError(f"{self.address} refuses the job: {_one_line(error)}") from error

    def probe(self, targets: Targets, runtime_env: Mapping[str, Any]) -> Findings:
        """Check from the cluster, in `runtime_env`, that a job's `targets` can be reached.

        Raises:
            SubmitError: if the cluster cannot run the check.
        """
        job = self.start(
            ["python", "-m", "pipelines.cluster.probe", json.dumps(asdict(targets))], runtime_env
        )
        deadline = time.monotonic() + _PROBE_SECONDS
        while not (info := self.client.get_job_info(job)).status.is_terminal():
            if time.monotonic() > deadline:
                self.client.stop_job(job)
                raise SubmitError(f"the cluster did not start the check {job} within {_PROBE_SECONDS} s")
            time.sleep(0.2)
        log = self.client.get_job_logs(job).strip().splitlines()
        Thread(target=self._forget, args=(job,)).start()
        for line in log:
            if line.startswith(MARK):
                return Findings(**json.loads(line.removeprefix(MARK)))
        reason = log[-1] if log else info.message
        raise SubmitError(f"the cluster cannot run this program: {_one_line(reason)}")

    def _forget(self, job: str) -> None:
        """Delete an ended `job` from the cluster's list.

        Ray (`job_manager.py` of 2.60) looks after its jobs once a second, and lists one as failed that was
        deleted before it saw its end: on a busy head this may be late, so it is deleted again.
        """
        for _ in range(_DELETIONS):
            time.sleep(_MONITOR_SECONDS)
            with suppress(RuntimeError):  # there is no such job
                self.client.delete_job(job)

    def follow(self, job: str, show: Callable[[str], None]) -> int:
        """Pass the log of a `job` to `show` until it ends; returns its exit code, 1 if it had none.

        Raises:
            SubmitError: if the connection is lost; the job continues if the cluster does.
        """

        async def show_log() -> None:
            async for lines in self.client.tail_job_logs(job):
                show(lines)

        try:
            asyncio.run(show_log())
            while not (info := self.client.get_job_info(job)).status.is_terminal():
                time.sleep(0.2)
        except (RuntimeError, OSError) as error:
            unless = f"lost {self.address} ({_one_line(error)}); unless the cluster is gone"
            raise SubmitError(f"{unless}, {self.how_to(job)}") from error
        if info.status == JobStatus.SUCCEEDED:
            return 0
        # The message ends with a copy of the log's last lines.
        reason = _one_line(str(info.message).partition(", last available logs")[0])
        show(f"job {job}: {info.status.value.lower()}: {reason}\n")
        return max(info.driver_exit_code or 1, 1)

    def how_to(self, job: str) -> str:
        """One line that says how to follow or stop a `job` that continues."""
        cli = f"{_ADDRESS}={self.address} ray job"
        return f"job {job} continues; follow it by `{cli} logs -f {job}`, stop it by `{cli} stop {job}`"


def submit(
    command: Sequence[str],
    parameters: Mapping[str, Any],
    address: str | None,
    variables: Sequence[str],
    include: Sequence[str],
    check: bool,
    wait: bool,
    show: Callable[[str], None],
) -> int:
    """Run a command of `dpt` on a cluster.

    Args:
        command: words after `dpt`, the first its subcommand.
        parameters: the subcommand's parameters by name, as parsed from `command`.
        address: of the job server; None for RAY_API_SERVER_ADDRESS.
        variables: further environment of the job, `KEY=VALUE`, or `KEY` for this process's value.
        include: further files and folders below the working directory that the job needs.
        check: whether to check from the cluster that it reaches what the job needs.
        wait: whether to follow the job to its end.
        show: called with text of the log as it arrives.

    Returns:
        The job's exit code; 0 without waiting.

    Raises:
        SubmitError, BadPackage: if the job could not run.
        KeyboardInterrupt, Stopped: on a signal; the job continues, and `show` was called with how to stop it.
    """
    address = address or os.environ.get(_ADDRESS)
    if not address:
        raise SubmitError(f"no cluster: give its job server by --address, or set {_ADDRESS}")
    # LOGNAME comes first in getpass: the run's user is the submitter, not the container's.
    origin = {COMMIT_VARIABLE: source_commit(TREE), "LOGNAME": getpass.getuser()}
    environment = {**origin, **job_environment(variables)}
    targets = job_targets(command[0], parameters, environment)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    own = [glob.escape(path) for path in own_files(parameters)]
    with tempfile.TemporaryDirectory(prefix="dpt-package-") as scratch:
        package = Path(scratch) / "package.zip"
        if links := write_package(TREE, tracked_files(TREE), Path.cwd(), [*include, *own], package):
            show(f"left out, as links: {', '.join(links)}\n")
        cluster = Cluster(address)
        runtime_env = {"working_dir": str(package), "env_vars": environment}
        if check:
            require_no_problem(cluster.probe(targets, runtime_env))
        job = cluster.start(["dpt", *command], runtime_env)
    if not wait:
        show(f"{cluster.how_to(job)}\n")
        return 0
    show(f"job {job} on {cluster.address}\n")
    try:
        return cluster.follow(job, show)
    except (KeyboardInterrupt, Stopped):
        show(f"\n{cluster.how_to(job)}\n")
        raise


def job_environment(variables: Sequence[str]) -> dict[str, str]:
    """Environment of a job: MLflow's variables, and `variables` as in `submit`.

    Raises:
        SubmitError: if a variable without value is not set here.
    """
    environment = {name: os.environ[name] for name in TRACKING_VARIABLES if name in os.environ}
    for variable in variables:
        name, given, value = variable.partition("=")
        if not given and name not in os.environ:
            raise SubmitError(f"--env {name}: not set here; give it as {name}=VALUE")
        environment[name] = value if given else os.environ[name]
    return environment


def job_targets(job: str, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> Targets:
    """What the subcommand `job` with `parameters` by name will read, write and track to in an `environment`.

    Raises:
        SubmitError: for a path that the cluster does not have; without MLflow server.
    """
    model = parameters.get("model")
    registered = str(model).startswith("models:/")
    raw = parameters.get("raw") or ()  # a path, or those of `dpt evaluate`, each a path or `SET=PATH`
    roots = [raw] if isinstance(raw, str) else [text.rpartition("=")[2] for text in raw]
    reads = [*(parameters.get("data") or ()), *roots, None if registered else model]
    targets = Targets(
        reads=[str(uri) for uri in reads if uri is not None],
        writes=[str(parameters[key]) for key in ("out", "storage") if parameters.get(key) is not None],
        tracking=without_credentials(environment[TRACKING]) if TRACKING in environment else None,
    )
    for uri in (*targets.reads, *targets.writes):
        if "://" not in uri and not os.path.isabs(uri):
            raise SubmitError(f"{uri}: a job on a cluster needs an absolute path or a URI")
    if targets.tracking is None and job not in _UNTRACKED:
        raise SubmitError(f"{TRACKING} is not set: name an MLflow server that the cluster reaches")
    own_files(parameters)
    return targets


def own_files(parameters: Mapping[str, Any]) -> list[str]:
    """Files of the user that a command with these `parameters` takes along: config, ablations of `dpt tune`.

    Raises:
        SubmitError: for one that is not below the working directory, whose names the job knows.
    """
    what = parameters.get("what") or ()  # of `dpt report` one name
    words = [word for word in what if word.endswith((".yaml", ".yml"))] if not isinstance(what, str) else []
    config = parameters.get("config")
    if config and (Path(config).exists() or not (CONFIG_FOLDER / f"{config}.yaml").is_file()):
        words.append(config)
    for word in words:
        if not (is_below(word) and Path(word).is_file()):
            raise SubmitError(f"{word}: expected a file below {Path.cwd()}, from where it goes with the job")
    return words


def require_no_problem(findings: Findings) -> None:
    """Check the `findings` of a probe, and that the cluster runs this version of Python.

    Raises:
        SubmitError: naming all problems.
    """
    here = ".".join(platform.python_version_tuple()[:2])
    problems = list(findings.problems)
    if findings.python != here:
        problems.append(f"the cluster runs Python {findings.python}, this machine {here}: make them one")
    if problems:
        raise SubmitError(f"from the cluster: {'; '.join(problems)}")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]
