"""Depth in the Wild: order of numbers, errors of annotation, paths."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.ingest.evaluation_rows import point_pair_columns
from datasets_prep.sources.diw import DIW
from datasets_prep.storage.folder import Folder
from tests.support.raw_files import good_samples, read_first

SCENES = 4
PHOTO = "./DIW_test/ab.thumb"


def write(root, lines, photos=(PHOTO,), table="DIW_test.csv"):
    for photo in photos:
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).write_bytes(encode_jpeg(np.zeros((20, 30, 3), np.uint8)))
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("\n".join(lines))
    return Folder(root)


def test_the_farther_point_is_the_scenes(written):
    tree = written("diw", SCENES)
    samples = good_samples(DIW(), tree)
    assert sorted(s.split for s in samples) == ["test", "test", "train", "val"]
    for sample in samples:
        scene = tree.scenes[int(sample.sample_id.rsplit("/", 1)[1])][0]
        pair = DIW().read(tree.root, sample)
        farther = scene.depth[pair.y_a, pair.x_a] > scene.depth[pair.y_b, pair.x_b]
        assert pair.a_is_farther == farther


@pytest.mark.parametrize(("relation", "farther"), [(">", True), ("<", False)])
def test_rows_come_first_and_count_from_one(tmp_path, relation, farther):
    root = write(tmp_path, [PHOTO, f"3,25,20,1,{relation},30,20"])
    [sample] = DIW().list(root).samples
    pair = DIW().read(root, sample)
    assert (pair.y_a, pair.x_a, pair.y_b, pair.x_b) == (2, 24, 19, 0)
    assert pair.a_is_farther is farther
    columns = point_pair_columns(pair)
    assert columns["point_pair"] == {"y_a": 2, "x_a": 24, "y_b": 19, "x_b": 0, "a_is_farther": farther}
    assert (columns["height"], columns["width"]) == (20, 30)


@pytest.mark.parametrize(
    "line", ["1,1,2,2,=,30,20", "1,1,2,2,>,30", "x", "1,1,2,2,>,30,20,4", "-1,1,2,2,>,30,20"]
)
def test_annotations_of_another_form_are_left_out(tmp_path, line):
    listing = DIW().list(write(tmp_path, [PHOTO, line]))
    assert not listing.samples
    [rejection] = listing.rejected
    assert rejection.path == "DIW_test/ab.thumb"
    assert repr(line) in rejection.reason


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "./DIW_test/other.thumb"])
def test_photos_that_are_not_there_are_left_out(tmp_path, name):
    listing = DIW().list(write(tmp_path, [name, "1,1,2,2,>,30,20"]))
    assert not listing.samples
    assert [(r.path, r.reason) for r in listing.rejected] == [(name, "photo of DIW_test.csv is not there")]


def test_a_table_may_lie_deeper_and_its_split_is_in_its_name(tmp_path):
    photo = "deep/DIW_train_val/cd.thumb"
    lines = ["./DIW_train_val/cd.thumb", "1,1,2,2,<,30,20"]
    [sample] = DIW().list(write(tmp_path, lines, [photo], "deep/DIW_val.csv")).samples
    assert (sample.sample_id, sample.split) == ("DIW_train_val/cd", "val")


def test_an_odd_line_at_the_end_is_noted(tmp_path):
    listing = DIW().list(write(tmp_path, [PHOTO, "1,1,2,2,>,30,20", PHOTO]))
    assert len(listing.samples) == 1
    assert "has no pair" in listing.rejected[0].reason


def test_another_size_than_the_annotation_says_is_refused(tmp_path):
    root = write(tmp_path, [PHOTO, "1,1,2,2,>,20,30"])
    with pytest.raises(BadSample, match="image is 30x20, its annotation is of 20x30"):
        read_first(DIW(), root)


@pytest.mark.parametrize("line", ["21,1,2,2,>,30,20", "0,1,2,2,>,30,20", "1,1,2,31,>,30,20"])
def test_points_outside_the_photo_are_refused(tmp_path, line):
    root = write(tmp_path, [PHOTO, line])
    pair = read_first(DIW(), root)
    with pytest.raises(BadSample, match=r"point [AB] at row -?\d+, column \d+ lies outside"):
        point_pair_columns(pair)


def test_a_table_of_too_many_lines_is_refused(tmp_path):
    root = write(tmp_path, ["a"] * 2_000_001)
    with pytest.raises(WrongLayout, match=r"DIW_test\.csv has 2000001 lines, more than 2000000$"):
        DIW().list(root)
