"""Official lists: parsing, what becomes of samples, hostile files, and the authors' real lists."""

import pickle
from pathlib import Path

import pytest

from datasets_prep.errors import NotFound, UserError, WrongLayout
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.plan.split_lists import SplitList, parse_list, read_lists, with_lists
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.sources.base import Listing
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import write_dataset
from tests.support.paths import SAMPLES

REAL = SAMPLES / "splits"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real lists beside the repository")
REDWEB = SOURCES["redweb"]


def listing(**splits: str | None) -> Listing:
    """Samples of one file each, by name and the split of their folder."""
    samples = (Sample(name, {"image": f"{name}.jpg"}, name, split) for name, split in splits.items())
    return Listing(Samples(samples))


def given(split: str, *names: str) -> SplitList:
    return SplitList(split, f"{split}.txt", [*names], "digest")


def splits_of(found: Listing) -> dict[str, str | None]:
    return {sample.sample_id: sample.split for sample in found.samples}


@pytest.mark.parametrize(
    "text",
    [
        b"a b\nc d\n",
        b"a b\r\nc d\r\n",
        b"\xef\xbb\xbfa b\t \n\n  c d",
        b"a b\rc d",
        "\ufeffa b\r\nc d".encode("utf-16-le"),
        "\ufeffa b\nc d\n".encode("utf-16-be"),
    ],
)
def test_lists_are_read_however_they_were_written(text):
    assert parse_list(text, "x.txt") == ["a b", "c d"]


def test_of_a_line_the_first_word_is_a_name_and_comments_are_none():
    found = with_lists(REDWEB, listing(a=None, b=None), [given("test", "# a comment", "b\t0 1", "#a")])
    assert (splits_of(found), found.rejected) == ({"a": None, "b": "test"}, [])


def test_a_sample_in_the_lists_of_two_splits_is_refused_naming_both():
    lists = [given("test", "a", "b"), given("val", "c"), given("train", "b", "c", "a")]
    message = r"^2 samples are in two lists, such as 'b': test\.txt and train\.txt$"
    with pytest.raises(WrongLayout, match=message):
        with_lists(REDWEB, listing(a=None, b=None, c=None), lists)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickled_lists_of_strings_are_read(protocol):
    names = ["0001/dense0/imgs/1_o.jpg", "0002/dense1/imgs/2_o.jpg"]
    assert parse_list(pickle.dumps(names, protocol), "imgs_MD.p") == names


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_wants_to_call_something_is_refused(tmp_path, protocol):
    canary = tmp_path / "canary"
    with pytest.raises(WrongLayout, match="is a pickle but not a plain list of strings"):
        parse_list(pickle.dumps([Hostile(canary)], protocol), "imgs_MD.p")
    assert not canary.exists()


def test_a_pickle_of_something_else_is_refused():
    with pytest.raises(WrongLayout, match="not a plain list of strings"):
        parse_list(pickle.dumps(["a", 3], 2), "imgs_MD.p")


def test_a_split_that_has_a_list_is_exactly_that_list():
    found = with_lists(REDWEB, listing(a="train", b="train", c="val", d="test"), [given("train", "a", "c")])
    assert splits_of(found) == {"a": "train", "c": "train", "d": "test"}
    assert [r.reason for r in found.rejected] == ["1 samples are in no list, the first: b"]


@pytest.mark.parametrize(
    ("listed", "unlisted"), [({"train": "a"}, "left out"), ({"val": "a"}, "train"), ({"test": "a"}, None)]
)
def test_what_becomes_of_samples_without_any_split(listed, unlisted):
    lists = [given(split, name) for split, name in listed.items()]
    found = splits_of(with_lists(REDWEB, listing(a=None, b=None), lists))
    assert found.get("b", "left out") == unlisted


@pytest.mark.parametrize("entry", ["../a", "/a", "x/../../a", "..", "c:\\a", "."])
def test_entries_that_point_outside_name_nothing(entry):
    found = with_lists(REDWEB, listing(a=None, b=None), [given("test", "b", entry)])
    assert splits_of(found) == {"a": None, "b": "test"}
    assert found.rejected[0].reason == f"1 of 2 entries name no sample that is here, the first: {entry!r}"


def test_a_given_list_that_names_nothing_is_an_error():
    with pytest.raises(WrongLayout, match=r"test.txt: none of its 1 entries names a redweb sample.*'z'"):
        with_lists(REDWEB, listing(a=None), [given("test", "z")], strict=True)


def test_a_found_list_that_names_nothing_is_only_noted():
    found = with_lists(REDWEB, listing(a=None), [given("train", "z")])
    assert splits_of(found) == {"a": None}
    assert len(found.rejected) == 1


def test_lists_by_path_go_into_the_version_by_their_content(tmp_path):
    write_dataset("redweb", tmp_path / "raw", scenes=4, height=32, width=48)
    for name, text in {"a.txt": "000001\n", "b.txt": "000001\n", "c.txt": "000002\n"}.items():
        (tmp_path / name).write_text(text)

    def plan(name: str):
        settings = IngestSettings(lists={"test": str(tmp_path / name)}, validation_share=0)
        return plan_ingest("redweb", str(tmp_path / "raw"), settings)

    first, same, other = plan("a.txt"), plan("b.txt"), plan("c.txt")
    assert first.version == same.version != other.version
    assert {shard.split: shard.count for shard in first.shards} == {"train": 3, "test": 1}


def test_several_lists_make_one_split(tmp_path):
    paths = [tmp_path / "landscape.txt", tmp_path / "portrait.txt"]
    for path, name in zip(paths, "ab", strict=True):
        path.write_text(name)
    lists = read_lists({"val": [str(path) for path in paths]})
    found = with_lists(REDWEB, listing(a=None, b=None, c=None), lists, strict=True)
    assert splits_of(found) == {"a": "val", "b": "val", "c": "train"}


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"^lists.test: no such file: .*nothing.txt"):
        read_lists({"test": str(tmp_path / "nothing.txt")})


def test_a_folder_is_not_a_list(tmp_path):
    (tmp_path / "lists").mkdir()
    with pytest.raises(NotFound, match=r"^lists.val: '.*/lists' is a folder; expected a file, one sample"):
        read_lists({"val": str(tmp_path / "lists")})
    in_memory = Folder("memory://folder-as-list")  # no object store has folders, only names that begin alike
    in_memory.write_text("lists/val.txt", "a")
    with pytest.raises(NotFound, match="is a folder"):
        read_lists({"val": f"{in_memory.uri}/lists"})


@pytest.mark.parametrize(("data", "line"), [
    ("a\nk\u00fcche".encode("latin-1"), 2),
    ("a\nk\u00fcche".encode("utf-16-le"), 2),  # without a byte-order mark
    ("a\nk\u00fcche".encode("utf-16-be"), 2),
    ("a\nk\u00fcche".encode("utf-32"), 1),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1),
    (b"a\nb\nc\0", 3),
])  # fmt: skip
def test_a_list_that_is_not_utf_8_is_refused_by_its_line(tmp_path, data, line):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.txt: line {line} is not UTF-8; expected a text file saved in"):
        read_lists({"val": str(tmp_path / "x.txt")})


# ---- The authors' own files
def keys_of(source: str, name: str) -> list[str | None]:
    entries = parse_list((REAL / name).read_bytes(), name)
    assert not any(entry[0].startswith("/") for entry in entries)
    return [SOURCES[source].listed(tuple(entry.split())) for entry in entries]


@needs_real
@pytest.mark.parametrize(("source", "name", "entries", "first"), [
    ("blendedmvs", "blendedmvs_BlendedMVS_training.txt", 106, "5c1f33f1d33e1f2e4aa6dda4"),
    ("blendedmvs", "blendedmvs_validation_list.txt", 7, "5b7a3890fc8fcf6781e2593a"),
    ("kitti", "kitti_eigen_test_files.txt", 697, "2011_09_26_drive_0002_sync/image_02/0000000069"),
    ("kitti", "kitti_eigen_benchmark_test_files.txt", 652, None),
    ("kitti", "bts_eigen_test_files_with_gt.txt", 697, None),
    ("nyuv2", "bts_nyudepthv2_test_files_with_gt.txt", 654, "bathroom/00045"),
    ("eth3d", "eth3d_marigold_filename_list.txt", 454, "office/DSC_0219"),
    ("irs", "irs_test_head.list", 2000, "Home/ArchVizInterior03Data/00001"),
    ("movies", "3dmovies_test.txt", 788, None),
    ("movies", "3dmovies_validation.txt", 3058, None),
])  # fmt: skip
def test_every_line_of_a_real_list_names_one_sample(source, name, entries, first):
    keys = keys_of(source, name)
    assert len(keys) == entries
    assert None not in keys
    assert len(set(keys)) == entries
    assert first in (None, keys[0])


@needs_real
def test_the_two_forms_of_the_eigen_list_name_the_same_frames():
    assert set(keys_of("kitti", "kitti_eigen_test_files.txt")) == set(
        keys_of("kitti", "bts_eigen_test_files_with_gt.txt")
    )


def test_lists_in_the_folder_are_not_asked_where_some_are_given(tmp_path):
    write_dataset("blendedmvs", tmp_path / "raw", scenes=3, height=32, width=48)
    root, source = Folder(tmp_path / "raw"), SOURCES["blendedmvs"]
    groups = sorted({sample.group for sample in source.list(root).samples})
    (tmp_path / "mine.txt").write_text(groups[0])
    found = list_samples(source, root, read_lists({"test": str(tmp_path / "mine.txt")}))
    assert {s.group: s.split for s in found.samples} == {groups[0]: "test", groups[1]: None, groups[2]: None}


def test_a_list_of_too_many_lines_is_refused():
    with pytest.raises(WrongLayout, match=r"^list\.txt has 1000001 lines, which is not a list file$"):
        parse_list(b"a\n" * 1_000_001, "list.txt")


def test_a_pickle_that_names_one_text_without_end_is_refused():
    data = pickle.dumps(["x" * 2**20] * 1000, protocol=2)
    with pytest.raises(WrongLayout, match=r"^list\.p unfolds to 1048576000 characters"):
        parse_list(data, "list.p")
