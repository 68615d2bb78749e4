"""Lists of a user's folder: every form of a line, and what no line names."""

import unicodedata
from pathlib import Path

import pytest

from datasets_prep.errors import UserError, WrongLayout
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.plan.split_lists import MAX_LIST_BYTES, read_lists
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.folder import FolderSource
from datasets_prep.storage.folder import Folder
from tests.support.raw_files import put

NAMES = ("kitchen one/0000", "kitchen one/0001", "hall/0000", "hall/7", "Küche/é", "#1/x", "plain", "a.b")
DESCRIPTION = b"name: mine\nquantity: depth\nmetric: false\n"


@pytest.fixture
def root(tmp_path) -> Folder:
    pairs = {
        f"{where}/{name}.{end}": b"" for name in NAMES for where, end in (("images", "jpg"), ("depth", "npy"))
    }
    return put(tmp_path / "robot", {**pairs, "dataset.yaml": DESCRIPTION})


def splits(root: Folder, lists=()) -> dict[str, str | None]:
    listing = list_samples(FolderSource().opened(root, {}), Folder(root.uri), lists)
    return {sample.sample_id: sample.split for sample in listing.samples}


def of_test_list(root: Folder, data: bytes) -> list[str]:
    put(Path(root.path), {"splits/test.txt": data})
    return [name for name, split in splits(root).items() if split == "test"]


@pytest.mark.parametrize(("line", "name"), [
    ("kitchen one/0000.png", "kitchen one/0000"),  # any ending of a photo or a map
    ("kitchen one/0000.JPG", "kitchen one/0000"),
    ("kitchen one/0000", "kitchen one/0000"),
    ("hall\\0000.png", "hall/0000"),
    ("images\\hall\\0000", "hall/0000"),
    ("images/hall/0000", "hall/0000"),
    ("./images/hall/0000.jpg/", "hall/0000"),
    ("depth/hall/0000.npy", "hall/0000"),
    ("robot/images/kitchen one/0001.jpg", "kitchen one/0001"),
    ("/data/my images/robot/images/kitchen one/0001.jpg", "kitchen one/0001"),
    ("C:\\data\\robot\\images\\kitchen one\\0001.jpg", "kitchen one/0001"),
    ("s3://bucket/robot/images/hall/7.jpg", "hall/7"),
    ("0001.png", "kitchen one/0001"),  # only one has this name
    ("7", "hall/7"),
    ("images/hall/0000.jpg depth/hall/0000.npy", "hall/0000"),
    ("hall/0000.jpg,depth/hall/0000.npy", "hall/0000"),
    ("hall/0000.jpg 518.8", "hall/0000"),
    ("#1/x.jpg", "#1/x"),
    ("a.b", "a.b"),
    ("a.b.jpg", "a.b"),
    ("plain", "plain"),
])  # fmt: skip
def test_a_line_names_its_sample_in_every_form(root, line, name):
    assert of_test_list(root, f"# a comment\n\n{line}\n".encode()) == [name]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_of_every_editor(root, form, encoding, end):
    text = unicodedata.normalize(form, f"Küche/é.jpg{end}kitchen one/0000.png\t {end}{end}#hall/7.jpg{end}")
    assert of_test_list(root, text.encode(encoding)) == ["Küche/é", "kitchen one/0000"]


def test_an_absolute_path_of_this_very_folder(root):
    assert of_test_list(root, f"{root.path}/images/hall/7.jpg".encode()) == ["hall/7"]


@pytest.mark.parametrize(("text", "message"), [
    ("7\nhall/8\nu/1.png\n# no\nw\ny", "4 of 5 lines .* the first: 'hall/8', 'u/1.png', 'w'; remove them"),
    ("0000.jpg", r"1 of 1 lines name .* '0000\.jpg' \(more than one has it\)"),
    ("hall/\nhall", "2 of 2 lines"),
    ("../robot/hall/0000", "1 of 1 lines"),
    ("images/0001.jpg", "1 of 1 lines"),  # there is a 0001, but in a folder
    ("kitchen two/0000.png", "1 of 1 lines"),  # its first word is no name
    ("", "names no sample: it is empty"),
    ("# only\n# comments\n", "names no sample: it is empty"),
    ("\1\2", "1 of 1 lines"),
])  # fmt: skip
def test_lines_that_name_no_sample_are_counted_and_shown(root, text, message):
    with pytest.raises(WrongLayout, match=rf"^splits/test\.txt:? {message}") as caught:
        of_test_list(root, text.encode())
    assert "\n" not in str(caught.value)


def test_a_given_list_is_read_by_the_same_rules(root, tmp_path):
    put(tmp_path, {"mine.txt": b"kitchen one\\0000.jpg\n", "bad.txt": b"hall/7\nno/where\n"})
    lists = read_lists({"test": str(tmp_path / "mine.txt")})
    assert [name for name, split in splits(root, lists).items() if split == "test"] == ["kitchen one/0000"]
    with pytest.raises(
        WrongLayout, match=r"bad\.txt: 1 of 2 lines name no sample that is here, .*'no/where'"
    ):
        splits(root, read_lists({"test": str(tmp_path / "bad.txt")}))


def test_a_sample_in_two_lists_is_refused_naming_both(root, tmp_path):
    put(
        tmp_path / "robot",
        {"splits/test.txt": b"hall/7\n", "splits/train.txt": b"images/hall/7.jpg\nplain\n"},
    )
    message = r"^1 samples are in two lists, such as 'hall/7': splits/test\.txt and splits/train\.txt$"
    with pytest.raises(WrongLayout, match=message):
        splits(root)


@pytest.mark.parametrize("name", ["validation.txt", "test.csv", "old/test.txt", "README"])
def test_a_file_that_can_only_be_meant_as_a_list_is_refused(root, tmp_path, name):
    put(tmp_path / "robot", {f"splits/{name}": b"hall/7\n"})
    with pytest.raises(
        WrongLayout, match=rf"splits/{name}: lists are called splits/train\.txt, val\.txt and test"
    ):
        splits(root)


def test_samples_in_no_list_are_each_named(root, tmp_path):
    put(tmp_path / "robot", {"splits/Train.TXT": b"hall/7\nplain"})
    plan = plan_ingest("folder", root.uri, IngestSettings())
    assert plan.samples == 2
    expected = {f"images/{name}.jpg": "in no list" for name in NAMES if name not in ("hall/7", "plain")}
    assert {entry.path: entry.reason for entry in plan.rejected} == expected


def test_a_list_too_long_to_be_read_is_no_list_that_is_not_there(root, tmp_path):
    put(tmp_path / "robot", {"splits/test.txt": b"hall/7\n" * (MAX_LIST_BYTES // 7 + 1)})
    with pytest.raises(UserError, match=r"test\.txt has \d+ bytes, expected at most"):
        splits(root)
