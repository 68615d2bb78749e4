"""What `dpt submit` finds wrong before a job starts; jobs themselves are in end_to_end/test_job_submit.py."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import SimpleNamespace

import fsspec
import pytest
import ray
import s3fs
from ray.job_submission import JobStatus

from pipelines import submit
from pipelines.cluster import probe
from pipelines.cluster.probe import Findings, Targets
from pipelines.submit import Cluster, SubmitError, job_environment, job_targets
from tests.support.faulty_s3 import serving

Serve = Callable[[int, object], str]
TRACKED = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a server that answers everything alike; returns its address."""
    servers = []

    def start(status: int, answer: object) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    # Connecting sets it; the test's end takes it back.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# ---- the cluster
def test_another_version_of_ray_is_refused(serve):
    address = serve(200, {"version": "4", "ray_version": "2.41.0", "ray_commit": "", "session_name": ""})
    said = rf"runs Ray 2\.41\.0, this machine {ray.__version__}: make them one"
    with pytest.raises(SubmitError, match=said):
        Cluster(address)


def test_another_python_is_refused():
    said = r"from the cluster: no disk; the cluster runs Python 2\.7, this mach"
    with pytest.raises(SubmitError, match=said):
        submit.require_no_problem(Findings("2.7", ["no disk"]))
    submit.require_no_problem(Findings(f"{sys.version_info.major}.{sys.version_info.minor}", []))


@pytest.mark.parametrize(("status", "answer", "message"), [
    (401, "Unauthorized: Missing authentication token", "refuses the token: set RAY_AUTH_MODE=token"),
    (403, "Forbidden: Invalid authentication token", "refuses the token: set RAY_AUTH_MODE=token"),
    (200, "<html>a wiki</html>", "is not a job server of Ray"),
    (200, {"version": "1"}, "is not a job server of Ray"),
    (404, "nothing here", "is not a job server of Ray"),
])  # fmt: skip
def test_what_is_no_job_server_of_ours_is_one_line(serve, status, answer, message):
    address = serve(status, answer)
    with pytest.raises(SubmitError, match=f"^{address} {message}") as caught:
        Cluster(address)
    assert "\n" not in str(caught.value)


def test_a_tunnel_that_is_not_open_is_named(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8")
    said = r"^no cluster answers at http://127\.0\.0\.1:9; is the tunnel open"
    with pytest.raises(SubmitError, match=said):
        Cluster("127.0.0.1:9")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    with pytest.raises(SubmitError, match=r"^no cluster: give its job server by --address"):
        submit.submit(["config", "train"], {}, None, [], [], True, True, print)


# ---- following a job
class Job:
    """A job as the client shows it: lines of log, then an end."""

    def __init__(self, lines: list[str], status: JobStatus, exit_code: int | None) -> None:
        self._lines = lines
        self._info = SimpleNamespace(status=status, driver_exit_code=exit_code, message="it\nended")

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        for line in self._lines:
            await asyncio.sleep(0)
            if line == "cut":
                raise RuntimeError("WebSocket connection closed")
            yield line

    def get_job_info(self, _: str) -> SimpleNamespace:
        return self._info


def following(job: Job) -> Cluster:
    cluster = object.__new__(Cluster)
    cluster.address, cluster.client = "http://head:8265", job
    return cluster


@pytest.mark.parametrize(("status", "exit_code", "expected"), [
    (JobStatus.SUCCEEDED, 0, 0),
    (JobStatus.FAILED, 3, 3),
    (JobStatus.FAILED, None, 1),
    (JobStatus.STOPPED, -15, 1),
])  # fmt: skip
def test_the_exit_code_is_the_jobs(status, exit_code, expected):
    said: list[str] = []
    assert following(Job(["step 1\n", "step 2\n"], status, exit_code)).follow("j1", said.append) == expected
    assert said[:2] == ["step 1\n", "step 2\n"]
    assert said[2:] == ([] if expected == 0 else [f"job j1: {status.value.lower()}: it ended\n"])


def test_a_lost_connection_says_how_to_go_on():
    said = (
        r"lost http://head:8265 .*; unless the cluster is gone, job j1 continues; follow it by .* logs -f j1"
    )
    with pytest.raises(SubmitError, match=said):
        following(Job(["step 1\n", "cut"], JobStatus.RUNNING, None)).follow("j1", print)


@pytest.mark.parametrize("noticed", [1, 3])  # before the first deletion, or between the two
def test_the_check_leaves_no_job_behind(noticed, monkeypatch):
    """Ray lists a job as failed that is gone when, at some second, it looks after it for the last time."""
    listed, now = {"check"}, [0.0]

    class Client:
        def delete_job(self, job: str) -> None:
            if job not in listed:
                raise RuntimeError("404")
            listed.remove(job)

    def sleep(seconds: float) -> None:
        if now[0] < noticed <= now[0] + seconds:
            listed.add("check")
        now[0] += seconds

    monkeypatch.setattr(submit.time, "sleep", sleep)
    cluster = object.__new__(Cluster)
    cluster.client = Client()
    cluster._forget("check")
    assert listed == set()


class Recorded(Cluster):
    """A cluster that remembers what was started, and whose user presses Ctrl-C."""

    started: list[list[str]]
    problems: list[str]

    def __init__(self, address: str) -> None:
        self.address = address

    def probe(self, targets: Targets, runtime_env: object) -> Findings:
        return Findings(f"{sys.version_info.major}.{sys.version_info.minor}", self.problems)

    def start(self, command: list[str], runtime_env: object) -> str:
        self.started.append(command)
        return "j1"

    def follow(self, job: str, show: object) -> int:
        raise KeyboardInterrupt


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    kind = type("Fresh", (Recorded,), {"started": [], "problems": []})
    monkeypatch.setattr(submit, "Cluster", kind)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    return kind


TRAIN = ["train", "--data", "/x", "--storage", "/runs"], {"data": ["/x"], "storage": "/runs"}


def test_a_problem_keeps_the_job_from_starting(recorded):
    recorded.problems.append("/x: no such folder")
    with pytest.raises(SubmitError, match="from the cluster: /x: no such folder"):
        submit.submit(*TRAIN, "http://head:8265", [], [], check=True, wait=True, show=print)
    assert recorded.started == []
    assert submit.submit(*TRAIN, "http://head:8265", [], [], check=False, wait=False, show=print) == 0
    assert recorded.started == [["dpt", *TRAIN[0]]]


def test_without_waiting_it_says_how_to_follow_and_stop(recorded):
    said: list[str] = []
    assert submit.submit(*TRAIN, "http://head:8265", [], [], check=True, wait=False, show=said.append) == 0
    with pytest.raises(KeyboardInterrupt):
        submit.submit(*TRAIN, "http://head:8265", [], [], check=True, wait=True, show=said.append)
    cli = "RAY_API_SERVER_ADDRESS=http://head:8265 ray job"
    for text in (said[0], said[-1]):
        assert f"job j1 continues; follow it by `{cli} logs -f j1`, stop it by `{cli} stop j1`" in text


def test_a_job_knows_the_submitters_commit(recorded, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    environments: list[dict[str, str]] = []

    def start(self: Recorded, command: list[str], runtime_env: dict[str, dict[str, str]]) -> str:
        environments.append(runtime_env["env_vars"])
        return "j1"

    monkeypatch.setattr(recorded, "start", start)
    submit.submit(*TRAIN, "http://head:8265", [], [], check=False, wait=False, show=print)
    submit.submit(
        *TRAIN, "http://head:8265", ["DPT_GIT_COMMIT=mine"], [], check=False, wait=False, show=print
    )
    git = ["git", "-C", str(submit.TREE)]
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    found = [environment["DPT_GIT_COMMIT"] for environment in environments]
    assert found == [f"{head}-dirty" if changed else head, "mine"]


def test_a_password_is_not_in_the_command_of_the_probe(monkeypatch):
    uri = "http://ranftl:vision@mlflow:5000"
    targets = job_targets("train", {}, {"MLFLOW_TRACKING_URI": uri})
    assert targets.tracking == "http://mlflow:5000"
    asked: list[str] = []

    def get(url: str, **_: object) -> SimpleNamespace:
        asked.append(url)
        return SimpleNamespace(status_code=200)

    monkeypatch.setattr("requests.get", get)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert probe.untracked(targets.tracking) is None
    assert asked == [f"{uri}/api/2.0/mlflow/experiments/search"]


# ---- the command
def test_the_environment_carries_tracking_and_what_is_asked_for(monkeypatch):
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.delenv("ABSENT", raising=False)
    assert job_environment(["A=b=c", "SECRET"]) == {**TRACKED, "A": "b=c", "SECRET": "s"}
    with pytest.raises(SubmitError, match="--env ABSENT: not set here; give it as ABSENT=VALUE"):
        job_environment(["ABSENT"])


def test_targets_are_what_the_command_reads_writes_and_tracks_to():
    parameters = {"data": ["s3://b/x", "/y"], "storage": "s3://b/runs", "name": "n", "config": "paper"}
    expected = Targets(["s3://b/x", "/y"], ["s3://b/runs"], "http://mlflow:5000")
    assert job_targets("train", parameters, TRACKED) == expected
    assert job_targets("prepare", {"raw": "/raw", "out": "/out"}, {}) == Targets(["/raw"], ["/out"])
    evaluated = job_targets("evaluate", {"data": ["/x"], "model": "models:/dpt@champion"}, TRACKED)
    assert evaluated.reads == ["/x"]
    assert job_targets("evaluate", {"data": ["/x"], "model": "/m"}, TRACKED).reads == ["/x", "/m"]


@pytest.mark.parametrize(("job", "parameters", "message"), [
    ("train", {"data": ["shards"], "storage": "/runs"}, "^shards: a job on a cluster needs an absolute"),
    ("train", {"data": ["/x"], "storage": "runs"}, "^runs: a job on a cluster needs an absolute path"),
    ("train", {"data": ["/x"], "storage": "/runs", "config": "my.yaml"}, "^my.yaml: expected a file below /"),
    ("train", {"data": ["/x"], "storage": "/runs", "config": "/dev/null"}, "^/dev/null: expected a file"),
    ("tune", {"data": ["/x"], "storage": "/runs", "what": ["../a.yaml"]}, "^../a.yaml: expected a file"),
])  # fmt: skip
def test_what_only_this_machine_has_is_refused(job, parameters, message):
    with pytest.raises(SubmitError, match=message):
        job_targets(job, parameters, TRACKED)


def test_configs_and_ablations_of_the_user_go_with_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "sub/rows.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a: 1")
    parameters = {"config": "./mine.yaml", "what": ["skip", "sub/rows.yml", "steps=3"]}
    assert submit.own_files(parameters) == ["sub/rows.yml", "./mine.yaml"]
    assert submit.own_files({"config": "demo", "what": "a.yaml"}) == []  # built in; the name of a model


def test_jobs_that_track_need_a_server():
    with pytest.raises(SubmitError, match=r"^MLFLOW_TRACKING_URI is not set"):
        job_targets("train", {"data": ["/x"], "storage": "/runs"}, {})


# ---- what runs on the cluster
def test_a_probe_finds_everything_at_once(tmp_path, serve, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    (tmp_path / "file").write_text("no folder")
    targets = Targets(
        reads=[str(tmp_path), str(tmp_path / "absent"), "nosuch://bucket/x"],
        writes=[str(tmp_path / "new" / "folder"), "memory://bucket/runs", str(tmp_path / "file/x")],
        tracking=serve(403, "Invalid Host header"),
    )
    found = probe.probe(targets)
    assert found.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    starts = [problem.split(": ")[0] for problem in found.problems]
    folders = (str(tmp_path / "absent"), "nosuch://bucket/x", str(tmp_path / "file/x"))
    assert starts == ["the command dpt is not installed on the cluster", *folders, targets.tracking]
    assert "no such folder" in found.problems[1]
    assert "refuses this user" in found.problems[4]
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "a probe leaves nothing behind"


def test_a_probe_leaves_no_object_behind():
    assert probe.unwritable("memory://probed/runs") is None
    assert fsspec.filesystem("memory").find("/probed") == []


@pytest.mark.heavy
def test_a_bucket_is_asked():
    asked = Targets(["s3://there", "s3://there/absent"], ["s3://there/runs", "s3://absent/runs"])
    with serving(["there"]):
        found = probe.probe(asked)
        assert s3fs.S3FileSystem().find("there") == []
    absent, unwritable = (problem for problem in found.problems if problem.startswith("s3://"))
    assert absent == "s3://there/absent: no such folder"
    assert unwritable.startswith("s3://absent/runs: FileNotFoundError: ")


@pytest.mark.parametrize(
    ("status", "problem"),
    [(200, None), (401, "refuses this user"), (404, "answers with status 404, which MLflow does not")],
)
def test_a_tracking_server_is_asked(serve, status, problem):
    said = probe.untracked(serve(status, {}))
    assert said is None if problem is None else str(said).startswith(problem)


def test_a_real_tracking_server_passes(mlflow_server):
    assert probe.untracked(mlflow_server) is None


def test_a_database_needs_its_folder(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert probe.untracked(f"sqlite:///{tmp_path}/mlflow.db") is None
    assert probe.untracked(f"sqlite:///{tmp_path}/file/mlflow.db") is not None
    assert probe.untracked("postgresql://db/mlflow") is None


def test_what_never_answers_is_a_problem(monkeypatch):
    release = Event()
    monkeypatch.setattr(probe, "unreadable", lambda _: release.wait() and None)
    found = probe.probe(Targets(reads=["s3://slow"]), seconds=0.01)
    release.set()
    assert found.problems[-1] == "s3://slow: no answer within 0 s"
