"""Commands in sessions of their own, each with its own Ray: all of it can be killed, and nothing else."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ON_A_CLUSTER = """
import logging, os, signal, sys
from threading import Thread
import ray
from ray.cluster_utils import Cluster

# A dead node is noticed in seconds, not in half a minute.
health = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000}
head_cpus, workers = int(os.environ.get("HEAD_CPUS", "1")), int(os.environ.get("WORKER_NODES", "2"))
common = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
head = {**common, "num_cpus": head_cpus, "include_dashboard": False, "_system_config": health}
# Without hooks, which only the main thread may set, so that a thread can add a node.
cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
for _ in range(workers):
    cluster.add_node(**common)
ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
assert len(ray.nodes()) == workers + 1, ray.nodes()
signal.signal(signal.SIGUSR1, lambda *_: Thread(target=cluster.add_node, kwargs=common).start())
print("cluster is up", flush=True)
from tune.cli import main
try:
    main()
finally:
    # In this order: a driver whose nodes end before it tries to win back what they held.
    ray.shutdown()
    cluster.shutdown()
"""
"""A command of `dpt` on a cluster of three nodes of one core each (HEAD_CPUS and WORKER_NODES change that),
all of them in the command's session; SIGUSR1 adds one more."""


@contextmanager
def running(
    command: Sequence[str], more: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A running command, in `cwd` or here, and its log; when the block ends, its session has no process."""
    # Not pytest's folder: Ray's sockets must have short paths.
    scratch = Path(tempfile.mkdtemp(prefix="dpt-"))
    log = scratch / "log"
    environment = {**os.environ, "RAY_TMPDIR": str(scratch), **(more or {})}
    environment.pop("RAY_ADDRESS", None)
    with log.open("wb") as sink:
        streams = {"stdout": sink, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, **streams, start_new_session=True, preexec_fn=_heed
        )
    try:
        yield process, log
    finally:
        kill_session(process.pid)
        process.wait(timeout=60)
        shutil.rmtree(scratch, ignore_errors=True)


def _heed() -> None:
    """Take signals that a shell has its background jobs ignore, and nohup all."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def session_processes(leader: int) -> list[psutil.Process]:
    """The living processes of a session: the leader and all that Ray started for it."""
    return [psutil.Process(pid) for pid in psutil.pids() if _is_alive_in_session(pid, leader)]


def kill_session(leader: int) -> None:
    """SIGKILL every process of a session, and nothing else."""
    deadline = time.monotonic() + 60
    while alive := [pid for pid in psutil.pids() if _is_alive_in_session(pid, leader)]:
        assert time.monotonic() < deadline, f"processes {alive} survive SIGKILL"
        # All stand still before the first dies: on a busy machine a driver could see its workers go and end.
        for blow in (signal.SIGSTOP, signal.SIGKILL):
            for pid in reversed(alive):  # youngest first: the workers, in the middle of what they do
                with suppress(ProcessLookupError):
                    os.kill(pid, blow)
        time.sleep(0.001)


def _is_alive_in_session(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def name_of(process: psutil.Process) -> str:
    """What a process calls itself: `ray::Map(write_shard)`, `raylet`; empty if it is gone."""
    try:
        return (process.cmdline() or [process.name()])[0].rsplit("/", 1)[-1]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
