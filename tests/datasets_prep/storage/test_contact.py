"""Storage that does not answer a command's first request; a file system in memory stands for a remote one."""

import logging
import time
from threading import Event

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from datasets_prep.storage import contact, retries
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import StorageFailed


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were asked for."""
    paths: list[str] = []
    monkeypatch.setattr(MemoryFileSystem, "exists", lambda self, path: paths.append(path))
    return paths


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def exists(self: MemoryFileSystem, path: str) -> bool:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "exists", exists)
    monkeypatch.setattr(retries, "PAUSES", ())


def test_silence_is_one_line_within_seconds(monkeypatch):
    monkeypatch.setattr(contact, "SECONDS", 0.05)
    monkeypatch.setattr(MemoryFileSystem, "exists", lambda *_: Event().wait())
    began = time.monotonic()
    with (
        contact.required(),
        pytest.raises(
            StorageFailed, match=r"^memory://bucket/raw: storage does not answer within 0 s; check"
        ),
    ):
        Folder("memory://bucket/raw")
    assert time.monotonic() - began < 5


def test_the_cause_is_said_in_one_line(monkeypatch):
    failing(monkeypatch, ConnectionError("no route\nto host"))
    with (
        contact.required(),
        pytest.raises(StorageFailed, match="answer: ConnectionError: no route to host; "),
    ):
        Folder("memory://bucket/raw")


@pytest.mark.parametrize("error", [FileNotFoundError("bucket"), PermissionError("closed"), ValueError("odd")])
def test_a_refusal_is_an_answer(error, monkeypatch):
    failing(monkeypatch, error)
    with contact.required():
        assert Folder("memory://bucket/raw").uri == "memory:///bucket/raw"


def test_each_bucket_is_asked_once_and_a_folder_of_this_machine_never(asked, tmp_path):
    with contact.required():
        for uri in ("memory://bucket/raw", "memory://bucket/out", "memory://other/raw", str(tmp_path)):
            Folder(uri)
    assert asked == ["/bucket/raw", "/other/raw"]


def test_a_worker_in_the_middle_of_a_job_has_all_the_patience_of_its_client(asked):
    Folder("memory://bucket/raw")
    assert asked == []


def test_clients_do_not_print_what_they_raise():
    with contact.required():
        for name in ("gcsfs", "azure.identity.aio", "google.auth"):
            assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
