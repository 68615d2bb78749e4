"""`dpt submit -- train …`: a command of `dpt` as a job on a cluster, from a laptop.

Ray's job server does the work (`ray job submit` does the same). What is added is that the mistakes which
otherwise show after minutes, in the log of a node, are one line before anything starts: another version of
Ray, a package that carries data, a bucket or an MLflow server that the cluster cannot reach.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import shlex
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import requests
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from datasets_prep.errors import UserError
from pipelines.cluster.probe import MARK, Findings, Targets
from pipelines.cluster.session import TRACKING, TRACKING_VARIABLES
from pipelines.config_files import CONFIG_FOLDER

PACKAGE_LIMIT = 8 * 2**20
"""Bytes of the zipped working directory above which data was packed by mistake; the code is a tenth of it."""

TREE = Path(__file__).parents[1]
_ADDRESS = "RAY_API_SERVER_ADDRESS"
_UNTRACKED = {"generate", "datasets", "prepare", "inspect", "config"}
_PROBE_SECONDS = 300
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)


class SubmitError(UserError):
    """Why a job was not submitted, in one line."""


class Cluster:
    """A cluster's job server.

    Args:
        address: `http://HOST:8265`, or without the scheme.

    Raises:
        SubmitError: if it does not answer, refuses the token, or runs another version of Ray.
    """

    def __init__(self, address: str) -> None:
        self.address = address if "://" in address else f"http://{address}"
        # Ray's client lets the variable win over its argument.
        os.environ[_ADDRESS] = self.address
        try:
            self.client = JobSubmissionClient(self.address)
            version = self.client._server_ray_version
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
            raise SubmitError(f"{self.address} is no job server of Ray: {_one_line(error)}") from error
        if version != ray.__version__:
            raise SubmitError(
                f"the cluster runs Ray {version}, this machine {ray.__version__}: make them one"
            )

    def start(self, command: Sequence[str], runtime_env: Mapping[str, Any]) -> str:
        """Start a job and return its id.

        Raises:
            SubmitError: if the job server refuses it.
        """
        try:
            return self.client.submit_job(entrypoint=shlex.join(command), runtime_env=dict(runtime_env))
        except RuntimeError as error:
            raise SubmitError(f"{self.address} refuses the job: {_one_line(error)}") from error

    def probe(self, targets: Targets, runtime_env: Mapping[str, Any]) -> Findings:
        """Try from the cluster what a job will need.

        Raises:
            SubmitError: if the cluster cannot even run the check.
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
        self.client.delete_job(job)
        for line in log:
            if line.startswith(MARK):
                return Findings(**json.loads(line.removeprefix(MARK)))
        reason = log[-1] if log else info.message
        raise SubmitError(f"the cluster cannot run this program: {_one_line(reason)}")

    def follow(self, job: str, show: Callable[[str], None]) -> int:
        """Show a job's log until it ends; returns its exit code (1 where it had none).

        Raises:
            SubmitError: if the connection is lost; the job goes on.
        """
        try:
            asyncio.run(self._show_log(job, show))
            while not (info := self.client.get_job_info(job)).status.is_terminal():
                time.sleep(0.2)
        except (RuntimeError, OSError) as error:
            raise SubmitError(f"lost {self.address} ({_one_line(error)}); {self.how_to(job)}") from error
        if info.status == JobStatus.SUCCEEDED:
            return 0
        # The message repeats the end of the log.
        reason = _one_line(str(info.message).partition(", last available logs")[0])
        show(f"job {job}: {info.status.value.lower()}: {reason}\n")
        return max(info.driver_exit_code or 1, 1)

    def how_to(self, job: str) -> str:
        """How to follow or stop a job that goes on."""
        ray_job = f"RAY_API_SERVER_ADDRESS={self.address} ray job"
        return f"job {job} goes on; follow it by `{ray_job} logs -f {job}`, stop it by `{ray_job} stop {job}`"

    async def _show_log(self, job: str, show: Callable[[str], None]) -> None:
        async for lines in self.client.tail_job_logs(job):
            show(lines)


def submit(
    command: Sequence[str],
    parameters: Mapping[str, Any],
    address: str | None,
    variables: Sequence[str],
    check: bool,
    wait: bool,
    show: Callable[[str], None],
) -> int:
    """Run a command of `dpt` on a cluster.

    Args:
        command: words after `dpt`, the first its subcommand.
        parameters: what they mean: the subcommand's parameters by name.
        address: of the job server; None for what the environment says.
        variables: further environment of the job, `KEY=VALUE`, or `KEY` for this process's value.
        check: whether to try from the cluster what the job needs.
        wait: whether to follow the job to its end.
        show: called with text as it comes.

    Returns:
        The job's exit code; 0 without waiting.

    Raises:
        SubmitError: if something would keep the job from running.
        KeyboardInterrupt: on Ctrl-C; the job goes on, and `show` was told how to stop it.
    """
    address = address or os.environ.get(_ADDRESS)
    if not address:
        raise SubmitError(f"no cluster: give its job server by --address, or set {_ADDRESS}")
    environment = job_environment(variables)
    targets = job_targets(command[0], parameters, environment)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="dpt-package-") as scratch:
        package = pack(TREE, Path(scratch))
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
    except KeyboardInterrupt:
        show(f"\n{cluster.how_to(job)}\n")
        raise


def job_environment(variables: Sequence[str]) -> dict[str, str]:
    """The environment that goes with a job: where to track, and what was asked for.

    Raises:
        SubmitError: if a variable is named whose value is nowhere.
    """
    environment = {name: os.environ[name] for name in TRACKING_VARIABLES if name in os.environ}
    for variable in variables:
        name, given, value = variable.partition("=")
        if not given and name not in os.environ:
            raise SubmitError(f"--env {name}: not set here; give it as {name}=VALUE")
        environment[name] = value if given else os.environ[name]
    return environment


def job_targets(job: str, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> Targets:
    """What a job will read, write and track to.

    Raises:
        SubmitError: if that is a place which only this machine knows, or which goes with the job.
    """
    model = parameters.get("model")
    registered = str(model).startswith("models:/")
    reads = [*(parameters.get("data") or ()), *_raw_folders(parameters), None if registered else model]
    targets = Targets(
        reads=[str(uri) for uri in reads if uri is not None],
        writes=[str(parameters[key]) for key in ("out", "storage") if parameters.get(key) is not None],
        tracking=environment.get(TRACKING),
    )
    for uri in (*targets.reads, *targets.writes):
        if "://" not in uri and not os.path.isabs(uri):
            raise SubmitError(f"{uri}: a job on a cluster needs an absolute path or a URI")
    if targets.tracking is None and job not in _UNTRACKED:
        raise SubmitError(f"{TRACKING} is not set: name an MLflow server that the cluster reaches")
    config = parameters.get("config")
    if config and not ((CONFIG_FOLDER / f"{config}.yaml").is_file() or (TREE / config).is_file()):
        raise SubmitError(f"--config {config}: no such file in {TREE}, and no other goes with the job")
    return targets


def _raw_folders(parameters: Mapping[str, Any]) -> list[str]:
    """The folders of `--raw`, which of `dpt evaluate` are several, each perhaps after the name of its set."""
    raw = parameters.get("raw") or ()
    return [raw] if isinstance(raw, str) else [text.rpartition("=")[2] for text in raw]


def pack(folder: Path, scratch: Path, limit: int = PACKAGE_LIMIT) -> Path:
    """Pack a working directory as Ray would, but compressed: every node downloads it.

    Args:
        folder: with the code; its `.gitignore` and `.rayignore` say what stays at home.
        scratch: an existing folder to write to.
        limit: bytes that the package may have.

    Returns:
        The package, the same bytes for the same files.

    Raises:
        SubmitError: if it is larger than `limit`, naming the largest files.
    """
    stored, package = scratch / "stored.zip", scratch / "package.zip"
    create_package(str(folder), stored, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(package, "w") as archive:
        for entry in source.infolist():
            archive.writestr(entry, source.read(entry), zipfile.ZIP_DEFLATED)
        files = sorted(archive.infolist(), key=lambda file: -file.compress_size)[:3]
    stored.unlink()
    size = package.stat().st_size
    if size <= limit:
        return package
    largest = ", ".join(f"{file.filename} ({file.compress_size / 2**20:.1f} MiB)" for file in files)
    raise SubmitError(
        f"the working directory packs to {size / 2**20:.1f} MiB, more than the {limit / 2**20:.0f} that are "
        f"sent to every node: name what is no code in {folder / '.rayignore'}; the largest: {largest}"
    )


def require_no_problem(findings: Findings) -> None:
    """Refuse to go on if a probe found problems.

    Raises:
        SubmitError: naming all of them.
    """
    here = ".".join(platform.python_version_tuple()[:2])
    problems = list(findings.problems)
    if findings.python != here:
        problems.append(f"the cluster runs Python {findings.python}, this machine {here}: make them one")
    if problems:
        raise SubmitError(f"from the cluster: {'; '.join(problems)}")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]
