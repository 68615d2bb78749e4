"""Stereo videos on S3 come to the same bytes on S3 as on a local disk."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import write_dataset
from tests.support.faulty_s3 import serving

pytestmark = pytest.mark.ray


@pytest.fixture
def bucket() -> Iterator[str]:
    """URI of an empty bucket of a server on loopback, which the environment leads to."""
    with serving(["stereo"]):
        yield "s3://stereo"


def stereo(videos: str, out: str) -> None:
    command = [sys.executable, "-m", "tune.cli", "stereo", "movies", "--videos", videos, "--out", out]
    # A process of its own: its Ray must know the address of the server.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_tree_on_s3_is_the_local_one(bucket, tmp_path):
    write_dataset("movies", tmp_path / "generated", scenes=1, seed=35, height=128, width=192)
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
