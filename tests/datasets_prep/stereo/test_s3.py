"""Stereo videos on S3 come to the same bytes on S3 as on a local disk."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import write_dataset

pytestmark = pytest.mark.ray


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of an empty bucket of a server on loopback, which the environment leads to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()
    S3FileSystem().mkdir("stereo")
    yield "s3://stereo"
    S3FileSystem.clear_instance_cache()
    server.stop()


def stereo(videos: str, out: str) -> None:
    command = [sys.executable, "-m", "tune.cli", "stereo", "movies", "--videos", videos, "--out", out]
    # A process of its own: its Ray must know the address of the server.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_tree_on_s3_is_the_local_one(bucket, tmp_path):
    write_dataset("movies", tmp_path / "generated", scenes=1, height=128, width=192)
    local = Folder(tmp_path / "generated" / "videos")
    remote = Folder(f"{bucket}/videos")
    for path in local.files():
        remote.fs.pipe(remote.path_of(path), local.read_bytes(path))
    stereo(local.uri, str(tmp_path / "raw"))
    stereo(remote.uri, f"{bucket}/raw")
    here, there = Folder(tmp_path / "raw"), Folder(f"{bucket}/raw")
    expected = {path: here.read_bytes(path) for path in here.files()}
    assert len(expected) > 20
    assert {path: there.read_bytes(path) for path in there.files()} == expected
    # Again: everything is found finished.
    stereo(remote.uri, f"{bucket}/raw")
    assert {path: there.read_bytes(path) for path in there.files()} == expected
