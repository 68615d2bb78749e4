"""Promotion and rollback of registered models, and the registry of a real server that asks for a password."""

import json
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import LoggedModelOutput

import dpt
from datasets_prep.manifest import Manifest, PreparedDataset
from datasets_prep.storage.folder import Folder
from pipelines.cli import registry as cli_registry
from pipelines.config import PredictConfig, TrainConfig
from pipelines.publish import publish
from pipelines.terminal import PlainConsole
from pipelines.tracking import origin
from pipelines.tracking import runs as tracking
from pipelines.tracking.registry import (
    list_models,
    models_to_choose,
    note_evaluation,
    note_protocol,
    promote,
    rollback,
    set_alias,
)
from pipelines.tracking.runs import TrackingError
from tests.support.commands import said

MEAN = "relative/abs_rel/mean"
USER, PASSWORD = "ranftl", "vision-transformers"


def kind_of(task: str, quantity: str, unit: str, predicts: str) -> dict[str, str]:
    return {"task": task, "quantity": quantity, "unit": unit, "predicts": predicts}


AFFINE = "inverse depth up to an unknown scale and shift, larger is nearer"
RELATIVE = kind_of("depth", "inverse_depth", "relative", AFFINE)
METRES = kind_of("depth", "depth", "m", "depth in metres")
PER_METRE = kind_of("depth", "inverse_depth", "1/m", "inverse depth in 1/metres, larger is nearer")
CLASSES = kind_of("segmentation", "classes", "class", "indices of 150 classes (wall, building, sky, …)")
ROADS = kind_of("segmentation", "classes", "class", "indices of 2 classes (road, sky, …)")
UNKNOWN = kind_of(*["unknown"] * 4)


def logged(
    metrics: Mapping[str, float],
    digests: Mapping[str, str] = {"redweb": "a1"},
    evaluates: str | None = None,
    kind: Mapping[str, str] | None = RELATIVE,
    registered: str | None = "dpt",
    **parameters: str,
) -> str:
    """Log a run with metrics, on data with digests, and a model of a kind, `registered`; its id."""
    experiment = MlflowClient().get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    with mlflow.start_run(experiment_id=experiment, run_name="logged") as run:
        mlflow.log_metrics(dict(metrics))
        mlflow.log_params({"caps.metres": "80.0", **parameters})
        for name, digest in digests.items():
            source = resolve_dataset_source("s3://bucket/shards")
            mlflow.log_input(MetaDataset(source, name=name, digest=digest))
        run_id = str(run.info.run_id)
        if evaluates is None:
            tags = dict(kind or {})
            model = mlflow.create_external_model(name="model", source_run_id=run_id, tags=tags)
            mlflow.log_outputs([LoggedModelOutput(model.model_id, 0)])
            if registered is not None:
                mlflow.register_model(f"models:/{model.model_id}", registered, tags=tags)
        else:
            note_evaluation(tracking.Run(mlflow.get_tracking_uri(), run_id), evaluates)
    return run_id


@pytest.fixture
def database(mlflow_database: str) -> None:
    """An empty MLflow that this process is connected to."""
    tracking.connect()


def champion() -> int:
    return int(MlflowClient().get_model_version_by_alias("dpt", "champion").version)


def test_the_models_that_can_be_chosen_are_named(database):
    assert models_to_choose().endswith("mlflow.db there are: none")
    for _ in range(2):
        logged({MEAN: 0.3})
    assert models_to_choose().endswith("mlflow.db there are: models:/dpt/2")
    set_alias("dpt", "champion", 1)
    set_alias("dpt", "challenger", 2)
    assert models_to_choose().endswith("there are: models:/dpt@challenger, models:/dpt@champion")


def test_a_wrong_alias_lists_those_that_there_are(database):
    logged({MEAN: 0.3})
    for alias in ("champion", "challenger"):
        set_alias("dpt", alias, 1)
    for wrong in ("dpt@champoin", "dpt", "dpt/9"):
        with pytest.raises(TrackingError, match="there are: models:/dpt@challenger, models:/dpt@champion"):
            tracking.fetch_model(f"models:/{wrong}")
    with pytest.raises(TrackingError, match="there are: models:/dpt@…"):
        tracking.fetch_model("models:/dtp@champion")


@pytest.mark.heavy
def test_an_alias_moves_to_what_is_not_worse_and_back(database):
    for value in (0.3, 0.2, 0.2, 0.25):
        logged({MEAN: value})
    assert str(promote("dpt", "1", "champion", MEAN)) == "models:/dpt@champion is now version 1"
    moved = promote("dpt", "2", "champion", MEAN)
    assert str(moved) == "models:/dpt@champion is now version 2 (before: version 1)"
    promote("dpt", "3", "champion", MEAN)  # equal is not worse
    worse = r"dpt version 4 is worse than version 3: relative/abs_rel/mean 0\.2500 ag"
    with pytest.raises(TrackingError, match=worse):
        promote("dpt", "4", "champion", MEAN)
    assert champion() == 3
    promote("dpt", "4", "champion", MEAN, force=True)
    assert champion() == 4

    for before in (3, 2, 1):  # of which the last is the worst: going back is never refused
        assert rollback("dpt", "champion").new == before
    with pytest.raises(TrackingError, match="no earlier version is known"):
        rollback("dpt", "champion")
    assert champion() == 1


@pytest.mark.parametrize("metric", ["relative/delta1/redweb", "relative/skill/redweb", "relative/skill/mean"])
def test_more_is_better_of_some_metrics(database, metric):
    for value in (-0.1, 0.2):
        logged({metric: value, MEAN: value})
    set_alias("dpt", "champion", 2)
    with pytest.raises(TrackingError, match="version 1 is worse"):
        promote("dpt", "1", "champion", metric)
    set_alias("dpt", "champion", 1)
    assert promote("dpt", "2", "champion", metric).new == 2


@pytest.mark.parametrize("metric", ["loss", "relative/mean_map_abs_rel/mean"])
def test_what_does_not_measure_the_model_is_refused(database, metric):
    for _ in range(2):
        logged({metric: 0.5})
    set_alias("dpt", "champion", 1)
    with pytest.raises(TrackingError, match=f"{metric}: not a metric to compare by"):
        promote("dpt", "2", "champion", metric)


@pytest.mark.parametrize("value", [float("nan"), None])
def test_what_was_not_measured_is_refused(database, value):
    logged({MEAN: 0.3})
    logged({} if value is None else {MEAN: value})
    set_alias("dpt", "champion", 1)
    missing = r"dpt version 2 has no relative/abs_rel/mean: run `dpt evaluate --model mo"
    with pytest.raises(TrackingError, match=missing):
        promote("dpt", "2", "champion", MEAN)
    set_alias("dpt", "champion", 2)
    with pytest.raises(TrackingError, match=r"dpt version 2 has no relative/abs_rel/mean"):
        promote("dpt", "1", "champion", MEAN)
    assert promote("dpt", "1", "champion", MEAN, force=True).new == 1


def test_measurements_on_other_data_or_by_another_protocol_are_not_compared(database):
    both = {MEAN: 0.3, "relative/abs_rel/redweb": 0.3}
    logged(both, {"redweb": "a1", "sintel": "b1"})
    logged(both, {"redweb": "a1", "sintel": "b2"})
    logged(both, {"redweb": "a1", "sintel": "b1"}, **{"caps.metres": "10.0"})
    set_alias("dpt", "champion", 1)
    with pytest.raises(TrackingError, match=r"versions 2 and 1 cannot be compared: sintel differ"):
        promote("dpt", "2", "champion", MEAN)
    with pytest.raises(TrackingError, match=r"cannot be compared: caps\.metres differ"):
        promote("dpt", "3", "champion", "relative/abs_rel/redweb")
    assert promote("dpt", "2", "champion", "relative/abs_rel/redweb").new == 2


def test_a_later_evaluation_decides(database):
    logged({MEAN: 0.2})
    logged({MEAN: 0.3}, split="val")
    set_alias("dpt", "champion", 1)
    logged({MEAN: 0.5}, {"nyuv2": "c1"}, evaluates="models:/dpt@champion")
    logged({MEAN: 0.4}, {"nyuv2": "c1"}, evaluates="models:/dpt/2")
    values = {found.version: found.metrics()[MEAN] for found in list_models("dpt")}
    assert values == {1: 0.5, 2: 0.4}
    assert promote("dpt", "2", "champion", MEAN).new == 2


def test_versions_are_found_by_number_or_alias_and_holders_that_were_deleted_skipped(database):
    for _ in range(3):
        logged({})
    set_alias("dpt", "challenger", 2)
    for version in ("1", "challenger", "3"):
        promote("dpt", version, "champion", MEAN, force=True)
    MlflowClient().delete_registered_model_alias("dpt", "challenger")
    MlflowClient().delete_model_version("dpt", "2")
    assert rollback("dpt", "champion").new == 1
    missing = r"dpt has no version or alias '9'; it has versions 1, 3; aliases: c"
    with pytest.raises(TrackingError, match=missing):
        promote("dpt", "9", "champion", MEAN)
    with pytest.raises(TrackingError, match=r"dpt has no alias 'chapion'; it has: champion"):
        rollback("dpt", "chapion")
    with pytest.raises(TrackingError, match=r"no registered model 'dtp'; there are: dpt"):
        list_models("dtp")


def versions() -> int:
    return len(MlflowClient().search_model_versions("name = 'dpt'"))


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "text"), [
    (METRES, "depth in metres"), (PER_METRE, "inverse depth in 1/metres"),
    (CLASSES, "indices of 150 classes"), (None, "something that its tags do not say"),
])  # fmt: skip
def test_an_alias_keeps_task_and_unit(database, kind, text):
    first = logged({MEAN: 0.3})
    assert publish(first, "dpt", "champion").moved.old is None
    other = logged({MEAN: 0.1}, kind=kind, registered=None)
    count = versions()
    refusal = rf"dpt@champion is version \d, which predicts inverse depth up to .*; .*predicts {text}"
    with pytest.raises(TrackingError, match=refusal) as caught:
        publish(other, "dpt", "champion")
    assert "--force" in str(caught.value)
    assert versions() == count, "refused before anything is registered"

    publish(other, "dpt", "challenger")
    with pytest.raises(TrackingError, match=refusal):
        promote("dpt", "challenger", "champion")
    assert publish(other, "elsewhere", "champion").kind.tags == (kind or UNKNOWN)
    before = champion()
    forced = publish(other, "dpt", "champion", force=True)
    assert (forced.moved.old, forced.moved.new) == (before, champion())
    assert str(forced.moved).endswith(f"(before: version {before})")
    assert rollback("dpt", "champion").new == before, "back to another unit, without --force"


@pytest.mark.parametrize(("alias", "reason"), [
    ("Latest", "reserved"), ("latest", "reserved"), ("v1", "reserved"), ("V20", "reserved"),
    ("a/b", "Invalid alias name"), ("a b", "Invalid alias name"),
    ("", "[Aa]lias"), ("x" * 300, "exceeds"),
])  # fmt: skip
def test_an_alias_that_mlflow_refuses_registers_nothing(database, alias, reason):
    run = logged({MEAN: 0.3})
    with pytest.raises(TrackingError, match=reason) as caught:
        publish(run, "dpt", alias)
    assert "\n" not in str(caught.value)
    assert versions() == 1
    with pytest.raises(TrackingError, match=reason):
        promote("dpt", "1", alias)


@pytest.mark.parametrize("name", ["a/b", "a:b", ""])
def test_a_name_that_mlflow_refuses_is_one_line(database, name):
    with pytest.raises(TrackingError) as caught:
        publish(logged({}), name, "champion")
    assert "\n" not in str(caught.value)
    assert versions() == 1


@pytest.mark.parametrize(("kind", "metric"), [
    (RELATIVE, "relative/abs_rel/mean"), (METRES, "metric/abs_rel/mean"), (CLASSES, "segmentation/miou/mean")
])  # fmt: skip
def test_versions_are_compared_by_the_metric_of_their_kind(database, kind, metric):
    values = (0.3, 0.2) if "abs_rel" in metric else (0.2, 0.3)
    for value in values:
        logged({metric: value, "zero_shot/abs_rel/mean": 1 - value}, kind=kind)
    set_alias("dpt", "champion", 2)
    with pytest.raises(TrackingError, match=f"version 1 is worse than version 2: {metric}"):
        promote("dpt", "1", "champion")
    set_alias("dpt", "champion", 1)
    assert promote("dpt", "2", "champion").new == 2


def test_the_same_metric_by_another_protocol_or_of_other_pixels_is_not_compared(database):
    kitti = {"kitti": "a1"}
    logged({"metric/abs_rel/kitti": 0.06}, kitti, kind=METRES)
    logged({"zero_shot/abs_rel/kitti": 0.01}, kitti, kind=METRES)
    other = logged({"metric/abs_rel/kitti": 0.05}, kitti, kind=METRES)
    note_protocol(tracking.Run(mlflow.get_tracking_uri(), other), {"kitti": "cap=20 m"}, [])
    set_alias("dpt", "champion", 1)
    with pytest.raises(TrackingError, match="dpt version 2 has no metric/abs_rel/kitti"):
        promote("dpt", "2", "champion", "metric/abs_rel/kitti")
    with pytest.raises(TrackingError, match="pixels of kitti differ"):
        promote("dpt", "3", "champion", "metric/abs_rel/kitti")
    with pytest.raises(TrackingError, match="expected PROTOCOL/METRIC/DATASET with PROTOCOL one of relative"):
        promote("dpt", "3", "champion", "abs_rel/kitti")


@pytest.mark.heavy
@pytest.mark.parametrize(("overrides", "kind"), [
    ({}, RELATIVE),
    ({"scale": 0.3, "shift": 0.2, "invert": True}, METRES),
    ({"scale": 0.3, "shift": 0.2}, PER_METRE),
    ({"max_depth": 20.0}, METRES),
    ({"task": "segmentation", "classes": 2, "class_names": ("road", "sky"), "batch_norm": True}, ROADS),
])  # fmt: skip
def test_what_a_model_predicts_goes_with_it_to_the_registry(overrides, kind, database, tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "source_commit", lambda: "0123456789abcdef-dirty")
    dpt.save_model(dpt.create_model("dpt_tiny", **overrides), tmp_path / "model")
    run = tracking.start_run("mine", "train", PredictConfig(), [])
    tracking.log_model(run, tmp_path / "model")
    told = said("publish", "mine", "--name", "dpt")
    assert f"version 1 predicts {kind['predicts']}; trained at commit 01234567-dirty" in told
    version = MlflowClient().get_model_version("dpt", "1")
    assert version.description.startswith(f"Predicts {kind['predicts']}.\n")
    page = f"runs:/{run.run_id}/pages/dpt-1/report.html"
    assert version.tags == {**kind, "git_commit": "0123456789abcdef-dirty", "page": page}
    monkeypatch.setattr(cli_registry, "console", PlainConsole(width=160))
    table = said("models", "dpt")
    assert kind["unit"] in table
    assert "01234567-dirty" in table
    [found] = json.loads(said("models", "--json"))
    assert (found["task"], found["unit"]) == (kind["task"], kind["unit"])


@pytest.mark.heavy
def test_whoever_finds_a_version_learns_what_it_was_made_of_and_how_good_it_is(database, tmp_path):
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    manifests = [Manifest(name, "affine", "v1", {}, {}, 0, "", {}, []) for name in ("redweb", "tartanair")]
    data = [PreparedDataset(Folder(tmp_path), manifest) for manifest in manifests]
    run = tracking.start_run("first", "train", TrainConfig(), data)
    run.log_metrics({MEAN: 0.5, "relative/abs_rel/redweb": 0.25, "relative/rmse/redweb": math.inf}, step=1)
    tracking.log_model(run, tmp_path / "model")
    publish("first", "dpt", "champion")
    client = MlflowClient()
    version = client.get_model_version("dpt", "1")
    digests = {f"data.{one.dataset}": one.digest[:32] for one in manifests}
    assert (digests | {MEAN: "0.5", "protocol": "relative", **RELATIVE}).items() <= version.tags.items()
    told = version.description
    for part in (
        manifests[0].digest[:8],
        "run first",
        "models:/dpt/1",
        "| relative/abs_rel/redweb | 0.2500 |",
    ):
        assert part in told
    assert "rmse" not in version.description
    model = client.get_registered_model("dpt")
    assert (model.tags["task"], model.tags["unit"]) == (RELATIVE["task"], RELATIVE["unit"])
    assert "dpt models dpt" in model.description
    page = mlflow.artifacts.download_artifacts(version.tags["page"], dst_path=str(tmp_path))
    assert "0.2500" in Path(page).read_text()
    client.update_registered_model("dpt", "ours")
    publish("first", "dpt", "champion")
    assert client.get_registered_model("dpt").description == "ours", "what people wrote stays"


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


def test_a_server_keeps_models_and_their_lineage(guarded, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_registry, "console", PlainConsole(width=160))
    manifest = Manifest("redweb", "affine", "v1", {}, {"train": 3}, 0, "", {}, [])
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    run = tracking.start_run("first", "train", PredictConfig(), [PreparedDataset(Folder(tmp_path), manifest)])
    run.log_metrics({MEAN: 0.5, "relative/abs_rel/redweb": 0.5, "loss": 1.0}, step=1)
    tracking.log_model(run, tmp_path / "model")
    publish("first", "dpt", "champion")
    logged({"relative/abs_rel/redweb": 0.25}, {"redweb": manifest.digest[:32]}, **{"caps.metres": "None"})
    set_alias("dpt", "challenger", 2)

    table = said("models", "dpt", "--metric", "relative/abs_rel/redweb")
    rows = [line for line in table.splitlines() if manifest.digest[:8] in line]
    for row, (alias, value) in zip(rows, [("challenger", "0.2500"), ("champion", "0.5000")], strict=True):
        assert alias in row
        assert value in row
    second, first = json.loads(said("models", "--json"))
    assert (second["version"], second["aliases"]) == (2, ["challenger"])
    assert (first["version"], first["aliases"], first["run_name"]) == (1, ["champion"], "first")
    assert first["metrics"] == {MEAN: 0.5, "relative/abs_rel/redweb": 0.5}
    assert first["data"] == {"redweb": manifest.digest[:32]}
    assert first["git_commit"]

    told = said("promote", "dpt", "challenger", "--alias", "champion", "--metric", "relative/abs_rel/redweb")
    assert told == "models:/dpt@champion is now version 2 (before: version 1)\n"
    assert "version 1 (before: version 2)" in said("rollback", "dpt")
    fetched = tracking.fetch_model("models:/dpt@champion")
    weights = [folder / "weights.safetensors" for folder in (fetched, tmp_path / "model")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_wrong_password_is_one_clear_line(guarded, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "convolutions")
    with pytest.raises(TrackingError, match=r"refuses this user: check MLFLOW_TRACKING_USERNAME") as caught:
        list_models()
    assert "\n" not in str(caught.value)
