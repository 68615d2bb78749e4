import re

import pyarrow as pa
import pytest

from datasets_prep.sources import files_by_sample as module
from datasets_prep.sources.files_by_sample import collect_files
from datasets_prep.storage.listing import LISTING_SCHEMA, FileListing

PATTERN = re.compile(r"(?:.*/)?(?P<scene>[a-z]+)/(?:(?P<image>\w+)\.jpg|(?P<depth>\w+)\.png)")


def listing(*paths: str) -> FileListing:
    ordered = sorted(paths)
    return FileListing(pa.table({"path": ordered, "bytes": [1] * len(ordered)}, LISTING_SCHEMA))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_files_of_a_name_come_together_in_sorted_order(chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    found = listing("b/1.jpg", "b/1.png", "a/2.png", "a/2.jpg", "a/10.jpg", "readme.txt", "a-z/3.jpg")
    files, copies = collect_files(found, PATTERN, ["scene"])
    assert copies == []
    assert list(files.items()) == [
        (("a", "10"), {"image": "a/10.jpg"}),
        (("a", "2"), {"image": "a/2.jpg", "depth": "a/2.png"}),
        (("b", "1"), {"image": "b/1.jpg", "depth": "b/1.png"}),
    ]


def test_a_second_copy_is_told_with_the_first_and_left_out():
    found = listing("x/a/1.jpg", "a/1.jpg", "y/a/1.jpg", "a/1.png", "y/b/2.png", "b/2.png")
    files, copies = collect_files(found, PATTERN, ["scene"])
    assert copies == [("x/a/1.jpg", "a/1.jpg"), ("y/a/1.jpg", "a/1.jpg"), ("y/b/2.png", "b/2.png")]
    assert dict(files.items()) == {
        ("a", "1"): {"image": "a/1.jpg", "depth": "a/1.png"},
        ("b", "2"): {"depth": "b/2.png"},
    }


def test_a_folder_of_other_files_has_no_samples():
    files, copies = collect_files(listing("readme.txt"), PATTERN, ["scene"])
    assert (list(files.items()), copies) == ([], [])
