"""Files that are not read: those too large, and those that a dataset's layout does not have."""

import os

import pytest

from datasets_prep.errors import UserError
from datasets_prep.plan.listing import MAX_FILE_BYTES
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.redweb import ReDWeb
from datasets_prep.storage.folder import DigestingFolder, Folder
from datasets_prep.synthetic import write_dataset


def test_a_sample_with_an_oversized_file_is_left_out_with_its_reason(tmp_path):
    write_dataset("redweb", tmp_path, 3, height=48, width=64)
    _, large, _ = ReDWeb().list(Folder(tmp_path)).samples
    path = large.files["depth"]
    os.truncate(tmp_path / path, MAX_FILE_BYTES + 1)  # a hole: it takes no space
    plan = plan_ingest("redweb", str(tmp_path), IngestSettings())
    assert plan.samples == 2
    [rejection] = plan.rejected
    assert rejection.path == path
    assert rejection.reason == f"file of {MAX_FILE_BYTES + 1} bytes, at most {MAX_FILE_BYTES} are read"


def test_files_up_to_the_limit_stay(tmp_path):
    write_dataset("redweb", tmp_path, 1, height=48, width=64)
    [sample] = ReDWeb().list(Folder(tmp_path)).samples
    os.truncate(tmp_path / sample.files["depth"], MAX_FILE_BYTES)
    assert plan_ingest("redweb", str(tmp_path), IngestSettings()).samples == 1


def test_files_besides_a_published_dataset_are_counted(tmp_path):
    write_dataset("redweb", tmp_path, 2, height=48, width=64)
    for name in ("Imgs/notes.txt", "README", "Imgs/._a.jpg"):
        (tmp_path / name).write_bytes(b"")
    plan = plan_ingest("redweb", str(tmp_path), IngestSettings())
    assert plan.unread == (2, "Imgs/notes.txt")
    assert [entry.path for entry in plan.rejected] == ["Imgs/._a.jpg"]


@pytest.mark.parametrize("kind", [Folder, DigestingFolder])
def test_a_small_file_is_read_up_to_a_limit(kind, tmp_path):
    (tmp_path / "list.txt").write_bytes(b"12345")
    folder = kind(tmp_path)
    assert folder.read_bytes("list.txt", most=5) == b"12345"
    assert folder.read_text("list.txt", most=5) == "12345"
    with pytest.raises(UserError, match=r"list\.txt has 5 bytes, expected at most 4$"):
        folder.read_bytes("list.txt", most=4)
