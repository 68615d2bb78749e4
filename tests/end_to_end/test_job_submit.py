"""`ray job submit` from a laptop: a real one-node cluster with token authentication runs this working tree.

What a cluster must show: it refuses whoever has no token, `dpt prepare` does there what it does at home, and
the job's processes run the uploaded files rather than whatever the nodes happen to have installed.
"""

import getpass
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasets_prep.manifest import open_dataset
from datasets_prep.synthetic import write_dataset
from pipelines.publish import publish
from pipelines.tracking import runs as tracking
from pipelines.tracking.source_commit import source_commit
from tests.support.paths import REPOSITORY
from tests.support.sessions import kill_session
from tests.support.tracked import find_run

pytestmark = [pytest.mark.ray, pytest.mark.long]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
RAY_SUBMIT = [*RAY, "job", "submit", "--working-dir", str(REPOSITORY)]
UPLOADED = "_ray_pkg_"  # Part of the folder's name that a node unpacks a job's working directory into.

TINY = (
    *("model.name=dpt_tiny", "model.pretrained=false", "batch_size=2", "crop=32", "precision=float32"),
    *("loader_workers=0", "log_every=50", "checkpoint_every=50", "validate_every=1000000", "device=cpu"),
)

WITNESS = """
# Python imports this module when it starts. It notes which file each module of the project is run from.
import os, sys

def note(event, arguments):
    name = getattr(arguments[0], "co_filename", "") if event == "exec" else ""
    if {"pipelines", "datasets_prep", "tune"} & set(os.path.dirname(name).split(os.sep)[-2:]):
        with open(os.path.join(os.path.dirname(__file__), "seen"), "a") as seen:
            seen.write(f"{os.getpid()} {name}\\n")

sys.addaudithook(note)
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster: the address of its job server, and the environment of one who has the token."""

    address: str
    environment: dict[str, str]
    seen: Path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not pytest's folder: Ray's sockets must have short paths.
    scratch = Path(tempfile.mkdtemp(prefix="dpt-"))
    (scratch / "token").write_text(secrets.token_hex(32))
    (scratch / "witness").mkdir()
    (scratch / "witness" / "sitecustomize.py").write_text(WITNESS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(scratch / "token")}
    # HOME is where it would otherwise look for a token.
    environment |= {"RAY_TMPDIR": str(scratch), "HOME": str(scratch)}
    # Whatever address it is given, Ray also listens on others: the token guards them.
    head, dashboard, agent, client = free_ports(4)
    log = scratch / "head.log"
    with log.open("wb") as sink:
        command = [
            *(*RAY, "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2"),
            *("--object-store-memory", str(200 * 2**20), "--port", str(head)),
            *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"),
            *("--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)),
            *("--ray-client-server-port", str(client)),
        ]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        of_nodes = environment | {"PYTHONPATH": str(scratch / "witness"), "PATH": path}
        streams = {"stdout": sink, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=of_nodes, **streams, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_until_up(address, environment, process, log)
        yield Cluster(address, environment, scratch / "witness" / "seen")
    finally:
        kill_session(process.pid)
        process.wait(timeout=10)
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class Prepared:
    """What a job of `dpt prepare` said, and the folder that it wrote."""

    said: str
    shards: Path


@pytest.fixture(scope="module")
def prepared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    write_dataset("redweb", folder / "raw", scenes=8, height=96, width=128)
    prepare = ["prepare", "redweb", "--raw", str(folder / "raw"), "--out", str(folder / "shards")]
    command = [sys.executable, "-m", "tune.cli", *prepare, "side=64", "samples_per_shard=4"]
    with submitted(cluster.address, cluster.environment, command) as job:
        said = job.communicate(timeout=400)[0]
    assert job.returncode == 0, said
    return Prepared(said, folder / "shards")


def test_a_job_runs_the_uploaded_tree(cluster, prepared):
    assert "7 train, 1 val, 0 quarantined" in prepared.said
    dataset = open_dataset(str(prepared.shards / "redweb"))
    assert [shard.rows for shard in dataset.manifest.split("train")] == [4, 3]
    version = prepared.shards / "redweb" / dataset.manifest.version
    assert all((version / shard.name).is_file() for shard in dataset.manifest.shards)
    check_ran_from_upload(cluster)


def test_a_job_needs_the_token(cluster, tmp_path):
    stranger = {name: value for name, value in cluster.environment.items() if "TOKEN" not in name}
    stranger["HOME"] = str(tmp_path)
    forged = stranger | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    touch = ["touch", str(tmp_path / "mark")]
    with ExitStack() as stack:  # at the same time: much of each is waiting
        attempts = [
            stack.enter_context(submitted(cluster.address, environment, touch))
            for environment in (stranger | {"RAY_AUTH_MODE": "disabled"}, forged)
        ]
        ours = stack.enter_context(dpt_submit(cluster.address, forged, ["config", "train"]))
        for attempt in attempts:
            said = attempt.communicate(timeout=400)[0]
            assert attempt.returncode != 0
            assert "AuthenticationError" in said
        said = ours.communicate(timeout=400)[0]
    assert ours.returncode == 1
    assert said.startswith(f"dpt: {cluster.address} refuses the token: set RAY_AUTH_MODE=token")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "mark").exists()


def test_the_console_script_decides_how_its_job_ends(cluster, tmp_path):
    cluster.seen.unlink(missing_ok=True)
    absent = tmp_path / "absent"
    good = ["dpt", "config", "prepare", "side=65"]
    bad = ["dpt", "prepare", "redweb", "--raw", str(absent), "--out", str(tmp_path)]

    with (
        submitted(cluster.address, cluster.environment, good) as works,
        submitted(cluster.address, cluster.environment, bad) as fails,
    ):
        said = works.communicate(timeout=400)[0]
        complained = fails.communicate(timeout=400)[0]

    assert works.returncode == 0, said
    assert "side: 65" in said
    assert fails.returncode != 0
    assert f"dpt: no such folder: {absent}" in complained
    assert {UPLOADED in line for line in cluster.seen.read_text().splitlines()} == {True}


def test_plain_job_submit_has_the_commit_of_its_metadata_or_the_digest_of_its_code(cluster):
    asking = ["python", "-c", "from pipelines.tracking import source_commit as s; print(s.source_commit())"]
    with_commit = [*RAY_SUBMIT, "--metadata-json", json.dumps({"git_commit": "0a1b2c"})]
    for command, commit in ((RAY_SUBMIT, UPLOADED.removeprefix("_")), (with_commit, "0a1b2c")):
        with submitted(cluster.address, cluster.environment, asking, command) as job:
            said = job.communicate(timeout=400)[0]
        assert re.search(rf"^{commit}[0-9a-f]*$", said, re.MULTILINE), said


def test_training_goes_the_whole_way_from_a_laptop(cluster, prepared, mlflow_server, tmp_path, monkeypatch):
    environment = cluster.environment | {"MLFLOW_TRACKING_URI": mlflow_server}
    runs = tmp_path / "runs"
    train = ["train", "--data", str(prepared.shards), "--storage", str(runs), "--name", "first", *TINY]

    with dpt_submit(cluster.address, environment, [*train, "steps=1000000"]) as follower:
        job = follow_until(follower, "step 50/1000000").split("job ")[1].split(" ")[0]
        wait_for_checkpoint(runs / "first")
        follower.send_signal(signal.SIGINT)
        said = follower.communicate(timeout=400)[0]
    assert follower.returncode != 0
    assert f"job {job} continues; follow it by `RAY_API_SERVER_ADDRESS={cluster.address} ray job logs" in said
    stopping = [*RAY, "job", "stop", "--address", cluster.address, job]
    stop = subprocess.run(stopping, env=environment, capture_output=True, text=True)
    assert "was stopped" in stop.stdout, stop.stdout + stop.stderr

    states = (runs / "first").glob("step_*/state.json")
    done = max(int(state.parent.name.removeprefix("step_")) for state in states)
    resumed = [*train, f"steps={done + 5}", "--resume", "--allow-changes"]
    with dpt_submit(cluster.address, environment, resumed, "--no-check") as follower:
        said = follower.communicate(timeout=400)[0]
    assert follower.returncode == 0, said
    assert f"step {done + 5}/{done + 5}" in said
    assert f"step {done}/" not in said

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    publish("first", "dpt", "champion")
    fetched = tracking.fetch_model("models:/dpt@champion") / "weights.safetensors"
    last = runs / "first" / f"step_{done + 5:08d}" / "weights.safetensors"
    assert fetched.read_bytes() == last.read_bytes()
    tags = find_run("first", mlflow_server).data.tags
    assert tags["git_commit"] == source_commit(REPOSITORY)
    assert (tags["mlflow.source.type"], tags["mlflow.user"]) == ("JOB", getpass.getuser())
    assert tags["ray_job"] == job
    assert tags["node_0"].startswith(tags["host"])


def test_what_the_cluster_cannot_reach_is_one_line(cluster, tmp_path):
    nowhere = "http://127.0.0.1:9"
    train = ["train", "--data", str(tmp_path / "absent"), "--storage", str(tmp_path), "--name", "x"]
    with dpt_submit(cluster.address, cluster.environment | {"MLFLOW_TRACKING_URI": nowhere}, train) as job:
        said = job.communicate(timeout=400)[0]
    assert job.returncode == 1
    assert said.startswith(f"dpt: from the cluster: {tmp_path}/absent: no such folder; {nowhere}: Connect")
    assert len(said.splitlines()) == 1


def check_ran_from_upload(cluster: Cluster) -> None:
    """Driver and at least one worker of the job ran the project's modules, and only uploaded ones."""
    seen = [line.split(" ", 1) for line in cluster.seen.read_text().splitlines()]
    assert {file for _, file in seen if UPLOADED not in file} == set()
    drivers = {pid for pid, file in seen if file.endswith("tune/cli.py")}
    assert len(drivers) == 1
    assert {pid for pid, file in seen if "/datasets_prep/" in file} > drivers


@contextmanager
def submitted(
    address: str, environment: dict[str, str], command: list[str], by: Sequence[str] = RAY_SUBMIT
) -> Iterator[subprocess.Popen[str]]:
    """`ray job submit` of a command, or what else submits it; waits for its end and has its exit code."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [*by, "--address", address, "--", *command]
    # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    process = subprocess.Popen(words, env=environment, **streams, **heeding, start_new_session=True)
    try:
        yield process
    finally:
        kill_session(process.pid)
        process.communicate(timeout=60)


def dpt_submit(
    address: str, environment: dict[str, str], command: list[str], *options: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    """`dpt submit` of a command."""
    return submitted(address, environment, command, [sys.executable, "-m", "tune.cli", "submit", *options])


def follow_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what a process says up to the line with a text; returns all of it."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it never said {text!r}: {said}")


def wait_for_checkpoint(run: Path) -> None:
    deadline = time.monotonic() + 300
    while not list(run.glob("step_*/state.json")):
        assert time.monotonic() < deadline, f"no checkpoint in {run}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that are free now. (Held all at once while choosing, so that no two are the same.)"""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]


def wait_until_up(
    address: str, environment: dict[str, str], process: subprocess.Popen[bytes], log: Path
) -> None:
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    request = urllib.request.Request(f"{address}/api/version", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            json.load(answer)
            return
        time.sleep(0.2)
    raise AssertionError(f"no answer from {address}: {log.read_text()}")
