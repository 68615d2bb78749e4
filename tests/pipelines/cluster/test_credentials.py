"""Passwords, keys and tokens: whoever raises or prints them, they reach neither screen nor files."""

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from mlflow import MlflowClient

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from pipelines.cluster.credentials import without_credentials
from pipelines.config import TrainConfig
from pipelines.config_files import with_changes
from pipelines.tracking import runs as tracking
from tests.support.commands import dpt
from tune.trial import SweepPlace

HF, DATABRICKS, AWS = "hf_" + "aB3" * 11, "dapi" + "0f" * 16, "AKIA" + "ABCD2345" * 2
PLAIN = "s3://bucket/a@b models:/dpt@champion hf-hub:o/n a@b.c"
SIGNED = "https://bucket.s3.amazonaws.com/a.npy?X-Amz-Credential=me%2F20260101&X-Amz-Signature=0f0f"


@pytest.mark.parametrize(("text", "shown"), [
    ("https://user:secret@host/a", "https://host/a"),
    ("postgresql://u:p@h/db refused", "postgresql://h/db refused"),
    (f"token {HF} is not valid", "token … is not valid"),
    (f"Bearer {DATABRICKS}", "Bearer …"),
    (f"{AWS} does not exist", "… does not exist"),
    (SIGNED, "https://bucket.s3.amazonaws.com/a.npy?X-Amz-Credential=…&X-Amz-Signature=…"),
    ("?AWSAccessKeyId=me&Signature=x%3D&Expires=7", "?AWSAccessKeyId=…&Signature=…&Expires=7"),
    (PLAIN, PLAIN),
])  # fmt: skip
def test_what_is_secret_is_taken_out_and_nothing_else(text, shown):
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "name", ["MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "DATABRICKS_TOKEN", "MY_API_KEY"]
)
def test_values_of_secret_variables_are_never_printed_or_raised(name, monkeypatch, capsys):
    monkeypatch.setenv(name, "of-no-known-form")

    def fail(**_: object) -> None:
        print(f"trying of-no-known-form at {SIGNED}")
        raise requests.ConnectionError(f"of-no-known-form was refused at https://user:s3cr@host/{HF}")

    monkeypatch.setattr("pipelines.cli.app.app", fail)
    assert dpt() == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("trying … at https://bucket.s3.amazonaws.com/a.npy?X-Amz-Credential=…")
    assert printed.err == "dpt: … was refused at https://host/…\n"


@pytest.mark.parametrize(
    "uri", ["s3://key:se/cr3t@bucket/p", "sftp://me:se/cr3t@host/p", "zip://a::s3://k:se/cr3t@b"]
)
def test_a_path_with_a_password_is_refused_before_it_is_stored(uri):
    with pytest.raises(UserError, match=r"…@.* give it by the environment") as caught:
        Folder(uri)
    assert "cr3t" not in str(caught.value)


@pytest.mark.heavy
def test_nothing_secret_is_stored_with_a_run(mlflow_database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of-no-known-form")
    config = with_changes(TrainConfig(), {"model.start": f"https://user:s3cr@host/of-no-known-form/{HF}"})
    run = tracking.start_run("mine", "train", config, [])
    run.log_change(f"model.start: '' → 'https://user:s3cr@host/{HF}'")
    client = MlflowClient(mlflow_database)
    stored = client.get_run(run.run_id).data
    file = Path(client.download_artifacts(run.run_id, "train.yaml", str(tmp_path)))
    assert yaml.safe_load(file.read_text())["model"]["start"] == "https://host/…/…"
    everything = [json.dumps(stored.to_dictionary()), file.read_text(), json.dumps(run.record())]
    for secret in ("s3cr", "user:", "of-no-known-form", HF):
        assert not any(secret in text for text in everything), secret
    assert secret_free(tmp_path, b"s3cr", HF.encode())


def test_what_is_sent_to_trials_has_no_password_and_finds_it_there(monkeypatch):
    run = tracking.Run("postgresql://ranftl:s3cret@host/mlflow", "4f")
    sent = pickle.dumps(SweepPlace("s3://bucket/sweep", run, 1, None))
    assert b"host/mlflow" in sent
    assert not any(secret in sent for secret in (b"s3cret", b"ranftl"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", run.tracking_uri)
    assert pickle.loads(sent).parent == run


def secret_free(folder: Path, *secrets: bytes) -> bool:
    files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    return not any(secret in file.read_bytes() for file in files for secret in secrets)


def test_a_variable_that_another_thread_unsets_meanwhile_is_no_error(monkeypatch):
    class Unset(dict[str, str]):
        def __iter__(self) -> Iterator[str]:
            return iter(["SESSION_TOKEN", *super().__iter__()])

    monkeypatch.setattr("os.environ", Unset(MY_TOKEN="of-no-known-form"))
    assert without_credentials("with of-no-known-form") == "with …"
