import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from datasets_prep.storage import listing as file_listing
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing import LISTING_SCHEMA, FileListing, list_files
from datasets_prep.storage.retries import StorageFailed


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def test_it_is_a_mapping_in_the_order_of_the_paths(tmp_path):
    write(tmp_path, "b/c.txt", "a.txt", "b.txt", "ä.txt")
    found = Folder(tmp_path).files()
    assert list(found) == sorted(found) == ["a.txt", "b.txt", "b/c.txt", "ä.txt"]
    assert found == {"a.txt": 5, "b.txt": 5, "b/c.txt": 7, "ä.txt": 6}
    assert found["b/c.txt"] == 7
    assert "b" not in found
    assert found.get("z") is None
    with pytest.raises(KeyError):
        found["z"]


def test_an_empty_folder_has_no_files(tmp_path):
    assert len(Folder(tmp_path).files()) == 0
    assert list(Folder(tmp_path).files()) == []


def test_more_files_than_a_chunk_holds_are_all_there(tmp_path, monkeypatch):
    monkeypatch.setattr(file_listing, "_CHUNK", 3)
    names = [f"{i:02d}" for i in range(10)]
    write(tmp_path, *names)
    assert list(Folder(tmp_path).files()) == names


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path, "disk/a.txt")
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "linked").symlink_to(tmp_path / "disk")
    (raw / "file.txt").symlink_to(tmp_path / "disk" / "a.txt")
    (raw / "circle").symlink_to(raw)
    (raw / "nowhere").symlink_to(tmp_path / "missing")
    (raw / "itself").symlink_to("itself")
    assert dict(Folder(raw).files()) == {"file.txt": 10, "itself": 0, "linked/a.txt": 10, "nowhere": 0}


def test_a_name_that_is_no_utf8_is_listed_as_something_that_cannot_be_read(tmp_path):
    write(tmp_path, "good.txt")
    with open(os.fsencode(tmp_path) + b"/bad\xff.txt", "wb"):
        pass
    assert list(Folder(tmp_path).files()) == ["bad?.txt", "good.txt"]


def test_a_remote_folder_is_listed_through_all_levels():
    fs = fsspec.filesystem("memory")
    for path in ("/listed/a", "/listed/x/b", "/listed/x/y/c", "/listed-not/d"):
        fs.pipe(path, b"12")
    assert dict(list_files(fs, "/listed")) == {"a": 2, "x/b": 2, "x/y/c": 2}


def test_a_store_that_does_not_answer_is_no_empty_folder(monkeypatch):
    fs = fsspec.filesystem("memory")
    monkeypatch.setattr("datasets_prep.storage.retries.PAUSES", (0.0,))

    def fail(*_: object, **__: object) -> None:
        raise OSError("service unavailable")

    monkeypatch.setattr(type(fs), "ls", fail)
    with pytest.raises(StorageFailed, match="/bucket/raw cannot be listed, tried 2 times: OSError: service"):
        list_files(fs, "/bucket/raw")


def test_looking_up_needs_no_object_for_every_path():
    paths = [f"{i:07d}" for i in range(200_000)]
    table = pa.table({"path": paths, "bytes": list(range(200_000))}, LISTING_SCHEMA)
    listing = FileListing(table)
    assert [listing[p] for p in ("0000000", "0123456", "0199999")] == [0, 123_456, 199_999]
    assert "0200000" not in listing
