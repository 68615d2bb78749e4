"""The whole way of the data on a real HTTP endpoint that speaks S3 and fails now and then, as S3 does."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from datasets_prep.inspect.verify import verify
from datasets_prep.manifest import open_dataset
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing_cache import LISTING_NAME
from tests.support.faulty_s3 import FaultyS3, serving

pytestmark = pytest.mark.ray

SETTINGS = ("side=64", "samples_per_shard=4", "validation_share=0.25")
FAULT_SHARE = 0.05


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyS3]:
    with serving(("raw", "shards")) as app:
        yield app


@contextmanager
def failing_now_and_then(s3: FaultyS3) -> Iterator[None]:
    s3.share = FAULT_SHARE
    yield
    s3.share = 0.0


@pytest.fixture(scope="module")
def raw_on_s3(s3: FaultyS3, raw_folder: Path) -> str:
    S3FileSystem().put(str(raw_folder / "tartanair"), "raw/tartanair", recursive=True)
    return "s3://raw/tartanair"


@pytest.fixture(scope="module")
def prepared_on_s3(s3: FaultyS3, raw_on_s3: str) -> str:
    """Prepared by the command, whose Ray gets the endpoint from its environment, while S3 fails at times."""
    with failing_now_and_then(s3):
        print(prepare(raw_on_s3, "s3://shards"))
    return "s3://shards/tartanair"


def prepare(raw: str, out: str) -> str:
    command = [sys.executable, "-m", "tune.cli", "prepare", "tartanair", *SETTINGS]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [*command, "--raw", raw, "--out", out], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(uri: str) -> dict[str, bytes]:
    """All files but the listing of the raw folder, which says where that is."""
    folder = Folder(uri)
    return {path: folder.read_bytes(path) for path in folder.files() if path != LISTING_NAME}


def test_the_bytes_are_those_of_a_local_run_and_nothing_is_lost(s3, prepared_on_s3, shards_folder):
    local, remote = contents(str(shards_folder / "tartanair")), contents(prepared_on_s3)
    print(f"faults: {dict(s3.faults)}")
    assert s3.faults.total() >= 5
    assert sorted(remote) == sorted(local)
    assert [path for path in local if remote[path] != local[path]] == []
    prepared = open_dataset(prepared_on_s3)
    assert prepared.manifest.quarantined == 0
    assert sum(prepared.manifest.samples.values()) == 20


def test_it_is_verified_while_s3_fails(s3, prepared_on_s3):
    before = s3.faults.total()
    with failing_now_and_then(s3):
        reports = [verify(open_dataset(prepared_on_s3)) for _ in range(5)]
    assert s3.faults.total() > before
    assert [report.problems for report in reports] == [[]] * 5


def test_a_finished_dataset_is_left_untouched(raw_on_s3, prepared_on_s3):
    fs = S3FileSystem()
    before = {path: entry["LastModified"] for path, entry in fs.find("shards", detail=True).items()}
    prepare(raw_on_s3, "s3://shards")
    fs.invalidate_cache()
    assert {path: entry["LastModified"] for path, entry in fs.find("shards", detail=True).items()} == before


def test_pyarrow_reads_a_shard_from_s3_by_itself(prepared_on_s3):
    prepared = open_dataset(prepared_on_s3)
    with S3FileSystem().open(f"{prepared.folder.path}/{prepared.manifest.shards[0].name}") as file:
        assert pq.read_table(file, columns=["sample_id"]).num_rows == prepared.manifest.shards[0].rows


def test_a_large_file_is_uploaded_in_parts_and_appears_whole(s3):
    folder = Folder("s3://shards/large")
    content = random.Random(0).randbytes(2**20) * 110  # from 100 MB on in parts
    with failing_now_and_then(s3):
        with folder.writing("data.bin") as path:
            path.write_bytes(content)
            assert not folder.exists("data.bin")
        assert folder.read_bytes("data.bin") == content
    folder.fs.rm(folder.path, recursive=True)
