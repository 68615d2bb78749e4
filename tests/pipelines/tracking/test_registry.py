"""Promotion and rollback of registered models, and the registry of a real server that asks for a password."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset

import dpt
from datasets_prep.manifest import Manifest, PreparedDataset
from datasets_prep.storage.folder import Folder
from pipelines.config import PredictConfig
from pipelines.publish import publish
from pipelines.tracking import runs as tracking
from pipelines.tracking.registry import list_models, note_evaluation, promote, rollback, set_alias
from pipelines.tracking.runs import TrackingError
from tests.support.commands import said

USER, PASSWORD = "ranftl", "vision-transformers"


def logged(
    metrics: Mapping[str, float],
    digests: Mapping[str, str] = {"redweb": "a1"},
    evaluates: str | None = None,
    **parameters: str,
) -> None:
    """Log a run with metrics, on data with digests, and a model that is registered as `dpt`."""
    experiment = MlflowClient().get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    with mlflow.start_run(experiment_id=experiment, run_name="logged") as run:
        mlflow.log_metrics(dict(metrics))
        mlflow.log_params({"caps.metres": "80.0", **parameters})
        for name, digest in digests.items():
            source = resolve_dataset_source("s3://bucket/shards")
            mlflow.log_input(MetaDataset(source, name=name, digest=digest))
        run_id = str(run.info.run_id)
        if evaluates is None:
            model = mlflow.create_external_model(name="model", source_run_id=run_id)
            mlflow.register_model(f"models:/{model.model_id}", "dpt")
        else:
            note_evaluation(tracking.Run(mlflow.get_tracking_uri(), run_id), evaluates)


@pytest.fixture
def database(mlflow_database: str) -> None:
    """An empty MLflow that this process is connected to."""
    tracking.connect()


def champion() -> int:
    return int(MlflowClient().get_model_version_by_alias("dpt", "champion").version)


def test_an_alias_moves_to_what_is_not_worse_and_back(database):
    for value in (0.3, 0.2, 0.2, 0.25):
        logged({"abs_rel/mean": value})
    assert str(promote("dpt", "1", "champion", "abs_rel/mean")) == "models:/dpt@champion is now version 1"
    moved = promote("dpt", "2", "champion", "abs_rel/mean")
    assert str(moved) == "models:/dpt@champion is now version 2 (before: version 1)"
    promote("dpt", "3", "champion", "abs_rel/mean")  # equal is not worse
    worse = r"dpt version 4 is worse than version 3: abs_rel/mean 0\.2500 ag"
    with pytest.raises(TrackingError, match=worse):
        promote("dpt", "4", "champion", "abs_rel/mean")
    assert champion() == 3
    promote("dpt", "4", "champion", "abs_rel/mean", force=True)
    assert champion() == 4

    assert rollback("dpt", "champion", "abs_rel/mean").new == 3
    assert rollback("dpt", "champion", "abs_rel/mean").new == 2
    with pytest.raises(TrackingError, match=r"version 1 is worse than version 2.* --force"):
        rollback("dpt", "champion", "abs_rel/mean")
    assert rollback("dpt", "champion", "abs_rel/mean", force=True).new == 1
    with pytest.raises(TrackingError, match="no earlier version is known"):
        rollback("dpt", "champion", "abs_rel/mean", force=True)
    assert champion() == 1


def test_more_is_better_of_some_metrics(database):
    for value in (0.8, 0.9):
        logged({"delta1/redweb": value})
    set_alias("dpt", "champion", 2)
    with pytest.raises(TrackingError, match="version 1 is worse"):
        promote("dpt", "1", "champion", "delta1/redweb")
    set_alias("dpt", "champion", 1)
    assert promote("dpt", "2", "champion", "delta1/redweb").new == 2
    with pytest.raises(TrackingError, match="loss: not a metric to compare by"):
        promote("dpt", "1", "champion", "loss")


@pytest.mark.parametrize("value", [float("nan"), None])
def test_what_was_not_measured_is_refused(database, value):
    logged({"abs_rel/mean": 0.3})
    logged({} if value is None else {"abs_rel/mean": value})
    set_alias("dpt", "champion", 1)
    missing = r"dpt version 2 has no abs_rel/mean: run `dpt evaluate --model mo"
    with pytest.raises(TrackingError, match=missing):
        promote("dpt", "2", "champion", "abs_rel/mean")
    set_alias("dpt", "champion", 2)
    with pytest.raises(TrackingError, match=r"dpt version 2 has no abs_rel/mean"):
        promote("dpt", "1", "champion", "abs_rel/mean")
    assert promote("dpt", "1", "champion", "abs_rel/mean", force=True).new == 1


def test_measurements_on_other_data_or_by_another_protocol_are_not_compared(database):
    both = {"abs_rel/mean": 0.3, "abs_rel/redweb": 0.3}
    logged(both, {"redweb": "a1", "sintel": "b1"})
    logged(both, {"redweb": "a1", "sintel": "b2"})
    logged(both, {"redweb": "a1", "sintel": "b1"}, **{"caps.metres": "10.0"})
    set_alias("dpt", "champion", 1)
    with pytest.raises(TrackingError, match=r"versions 2 and 1 cannot be compared: sintel differ"):
        promote("dpt", "2", "champion", "abs_rel/mean")
    with pytest.raises(TrackingError, match=r"cannot be compared: caps\.metres differ"):
        promote("dpt", "3", "champion", "abs_rel/redweb")
    assert promote("dpt", "2", "champion", "abs_rel/redweb").new == 2


def test_a_later_evaluation_decides(database):
    logged({"abs_rel/mean": 0.2})
    logged({"abs_rel/mean": 0.3}, split="val")
    set_alias("dpt", "champion", 1)
    logged({"abs_rel/mean": 0.5}, {"nyuv2": "c1"}, evaluates="models:/dpt@champion")
    logged({"abs_rel/mean": 0.4}, {"nyuv2": "c1"}, evaluates="models:/dpt/2")
    values = {found.version: found.metrics()["abs_rel/mean"] for found in list_models("dpt")}
    assert values == {1: 0.5, 2: 0.4}
    assert promote("dpt", "2", "champion", "abs_rel/mean").new == 2


def test_versions_are_found_by_number_or_alias_and_holders_that_were_deleted_skipped(database):
    for _ in range(3):
        logged({})
    set_alias("dpt", "challenger", 2)
    for version in ("1", "challenger", "3"):
        promote("dpt", version, "champion", "abs_rel/mean", force=True)
    MlflowClient().delete_registered_model_alias("dpt", "challenger")
    MlflowClient().delete_model_version("dpt", "2")
    assert rollback("dpt", "champion", "abs_rel/mean", force=True).new == 1
    missing = r"dpt has no version or alias '9'; it has versions 1, 3; aliases: c"
    with pytest.raises(TrackingError, match=missing):
        promote("dpt", "9", "champion", "abs_rel/mean")
    with pytest.raises(TrackingError, match=r"dpt has no alias 'chapion'; it has: champion"):
        rollback("dpt", "chapion", "abs_rel/mean")
    with pytest.raises(TrackingError, match=r"no registered model 'dtp'; there are: dpt"):
        list_models("dtp")


# ---- a real server, behind a proxy that asks for a password
class PasswordProxy(BaseHTTPRequestHandler):
    """Forwards to the server at `backend` what carries the password."""

    backend = ""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        expected = f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        if self.headers.get("Authorization") != expected:
            return self._answer(401, b"who are you?", "text/plain")
        connection = HTTPConnection(self.backend.removeprefix("http://"), timeout=60)
        headers = {key: value for key, value in self.headers.items() if key not in ("Host", "Authorization")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        self._answer(answer.status, answer.read(), answer.getheader("Content-Type", "text/plain"))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def guarded(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLFLOW_TRACKING_URI names a server that asks for a password, which the environment has."""
    handler = type("Proxy", (PasswordProxy,), {"backend": mlflow_server})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    yield
    proxy.shutdown()
    proxy.server_close()


def test_a_server_keeps_models_and_their_lineage(guarded, tmp_path):
    manifest = Manifest("redweb", "affine", "v1", {}, {"train": 3}, 0, {}, [])
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    run = tracking.start_run("first", "train", PredictConfig(), [PreparedDataset(Folder(tmp_path), manifest)])
    run.log_metrics({"abs_rel/mean": 0.5, "abs_rel/redweb": 0.5, "loss": 1.0}, step=1)
    tracking.log_model(run, tmp_path / "model")
    publish("first", "dpt", "champion")
    logged({"abs_rel/redweb": 0.25}, {"redweb": manifest.digest[:32]}, **{"caps.metres": "None"})
    set_alias("dpt", "challenger", 2)

    table = said("models", "dpt", "--metric", "abs_rel/redweb")
    rows = [line for line in table.splitlines() if manifest.digest[:8] in line]
    for row, (alias, value) in zip(rows, [("challenger", "0.2500"), ("champion", "0.5000")], strict=True):
        assert alias in row
        assert value in row
    second, first = json.loads(said("models", "--json"))
    assert (second["version"], second["aliases"]) == (2, ["challenger"])
    assert (first["version"], first["aliases"], first["run_name"]) == (1, ["champion"], "first")
    assert first["metrics"] == {"abs_rel/mean": 0.5, "abs_rel/redweb": 0.5}
    assert first["data"] == {"redweb": manifest.digest[:32]}
    assert first["git_commit"]

    told = said("promote", "dpt", "challenger", "--alias", "champion", "--metric", "abs_rel/redweb")
    assert told == "models:/dpt@champion is now version 2 (before: version 1)\n"
    assert "version 1 (before: version 2)" in said("rollback", "dpt", "--force")
    fetched = tracking.fetch_model("models:/dpt@champion")
    weights = [folder / "weights.safetensors" for folder in (fetched, tmp_path / "model")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_wrong_password_is_one_clear_line(guarded, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "convolutions")
    with pytest.raises(TrackingError, match=r"refuses this user: check MLFLOW_TRACKING_USERNAME") as caught:
        list_models()
    assert "\n" not in str(caught.value)
