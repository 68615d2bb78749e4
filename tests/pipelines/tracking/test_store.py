"""Where runs are tracked: odd folder names, nothing there yet, and passwords in its address."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import create_engine

import dpt
from datasets_prep.errors import UserError
from pipelines.cluster.credentials import with_credentials, without_credentials
from pipelines.config import PredictConfig
from pipelines.report.model_page import write_model_report
from pipelines.tracking import runs as tracking
from pipelines.tracking.database import alone_with, local_store
from pipelines.tracking.registry import list_models, promote, rollback
from pipelines.tracking.runs import NoStore, Run, TrackingError
from tests.support.commands import dpt as dpt_command
from tests.support.commands import said

SECRETS = ("ranftl", "vision", "s3cr")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: nothing in it, and no tracking server."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.mark.parametrize(
    "name", ["q?x", "a#b", "50% off", "50%25", "a?b=c&d#e", "a b", "ä:ö;ü", "x@y", "plain"]
)
def test_the_database_and_its_artifacts_lie_in_a_folder_of_any_name(
    name, mlflow_template, tmp_path, monkeypatch
):
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tracking.start_run("mine", "predict", PredictConfig(), [])
    run.log_text("hello", "notes.txt")
    mlflow.MlflowClient().create_registered_model("dpt")  # another store of MLflow's, in the same database
    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("SELECT run_uuid, name FROM runs").fetchall() == [(run.run_id, "mine")]
    assert [path.read_text() for path in (folder / "mlruns").rglob("notes.txt")] == ["hello"]
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlruns"}
    assert {path.name for path in tmp_path.iterdir()} == {name}
    fetched = mlflow.artifacts.download_artifacts(run_id=run.run_id, artifact_path="notes.txt")
    assert Path(fetched).read_text() == "hello"
    assert tracking.find_run("mine") == run.run_id


def test_a_database_is_made_by_one_process_at_a_time(empty, mlflow_template):
    database = empty / "mlflow.db"
    with ThreadPoolExecutor(1) as pool:
        with alone_with(database):
            connecting = pool.submit(tracking.connect)
            with pytest.raises(NotYet):
                connecting.result(timeout=0.5)
            assert not database.exists()
            shutil.copy(mlflow_template, database)
        assert connecting.result(timeout=60) == local_store(empty)
    assert {path.name for path in empty.iterdir()} == {"mlflow.db"}


def test_a_database_in_a_folder_that_is_not_there_yet(tmp_path):
    with alone_with(tmp_path / "a/b/mlflow.db"), alone_with(None):
        assert not (tmp_path / "a").exists()


def test_a_busy_database_is_waited_for(empty, mlflow_database):
    tracking.connect()
    with create_engine(mlflow_database).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


@pytest.mark.parametrize("command", [
    ("models",), ("models", "dpt"), ("promote", "dpt", "2"), ("rollback", "dpt"), ("publish", "first"),
    ("publish", "sweep", "--best"), ("report", "first"), ("report", "models:/dpt@champion"),
    ("evaluate", "--data", "{shards}", "--model", "models:/x@champion"),
    ("predict", "photo.png", "--model", "models:/x@champion", "--out", "out"),
    ("convert", "models:/x/1", "out"),
])  # fmt: skip
def test_what_only_reads_says_where_it_looked_and_leaves_nothing(command, empty, shards_folder):
    words = [word.format(shards=shards_folder) for word in command]
    with pytest.raises(UserError) as caught:
        said(*words)
    assert str(empty / "mlflow.db") in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(empty.iterdir()) == []


def test_a_database_that_is_named_but_missing_stays_missing(empty, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{empty}/other.db")
    with pytest.raises(NoStore, match=r"nothing is tracked in .*/empty/other\.db"):
        list_models()
    assert list(empty.iterdir()) == []


def test_a_model_of_a_folder_has_a_page_where_nothing_is_tracked(empty, tmp_path):
    dpt.save_model(dpt.create_model("dpt_tiny", image_size=64), tmp_path / "tiny")
    assert (
        "no evaluation of this model yet" in write_model_report(str(tmp_path / "tiny"), tmp_path).read_text()
    )
    assert list(empty.iterdir()) == []


def test_an_empty_registry_is_said_not_drawn(mlflow_database):
    assert said("models") == f"no registered models in {mlflow_database}\n"


def test_a_damaged_database_is_one_line(empty):
    (empty / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"damaged" * 100)
    with pytest.raises(TrackingError, match=r"MLflow at sqlite:.*mlflow\.db: ") as caught:
        list_models()
    assert "\n" not in str(caught.value)


# ---- passwords
URIS = [
    ("http://ranftl:vision@127.0.0.1:9", "http://127.0.0.1:9"),
    ("https://ranftl:s3cr%40et@mlflow.example.org/path", "https://mlflow.example.org/path"),
    ("postgresql://ranftl:s3cr/e@t@db:5432/mlflow", "postgresql://db:5432/mlflow"),
    ("mysql+pymysql://ranftl@db/mlflow", "mysql+pymysql://db/mlflow"),
    ("postgresql://db/mlflow?user=ranftl&password=s3cret", "postgresql://db/mlflow?user=…&password=…"),
    ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ("sqlite:////data/a b/x@y/mlflow.db", "sqlite:////data/a b/x@y/mlflow.db"),
    ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
]


@pytest.mark.parametrize(("uri", "shown"), URIS)
def test_names_and_passwords_are_taken_out_of_addresses_and_put_back(uri, shown, monkeypatch):
    assert without_credentials(uri) == shown
    assert without_credentials(f"no run in {uri} or {uri}") == f"no run in {shown} or {shown}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert with_credentials(shown) == uri
    assert with_credentials("http://elsewhere:5000") == "http://elsewhere:5000"
    run = Run(uri, "4f")
    assert not any(secret in json.dumps(run.record()) for secret in SECRETS)
    assert Run.of_record(run.record()) == run


@pytest.mark.parametrize("ask", [
    tracking.connect, list_models, lambda: tracking.find_run("mine"),
    lambda: tracking.fetch_model("models:/dpt@champion"), lambda: promote("dpt", "1", "champion"),
    lambda: rollback("dpt", "champion"), lambda: Run("http://ranftl:vision@127.0.0.1:9", "4f").reopen(),
])  # fmt: skip
@pytest.mark.parametrize(
    "uri", ["http://ranftl:vision@127.0.0.1:9", "postgresql://ranftl:vision@127.0.0.1:9/x"]
)
def test_messages_hold_no_password(uri, ask: Callable[[], object], monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9") as caught:
        ask()
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert "\n" not in str(caught.value)


def test_a_database_whose_driver_is_missing_names_the_package_and_no_password(empty, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+pg8000://ranftl:s3cret@host/db")
    assert dpt_command("models") == 1
    expected = "dpt: MLflow at postgresql+pg8000://host/db: No module named 'pg8000'; pip install pg8000\n"
    assert capsys.readouterr().err == expected
