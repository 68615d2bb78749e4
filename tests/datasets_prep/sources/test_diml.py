"""DIML: two products, millimetres, confidence, names that differ between folders."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.diml import DIML, DIMLOutdoor
from datasets_prep.storage.folder import Folder
from tests.support.raw_files import good_samples, left_out, put, read_first

SCENES = 5


def put_png(root, path, values):
    put(root, {path: formats.encode_png(values)})


def pair(root, image, depth, values=((0, 1, 2500),)):
    stored = np.array(values, np.uint16)
    put_png(root, image, np.zeros((*stored.shape, 3), np.uint8))
    put_png(root, depth, stored)


def test_both_products_of_the_generated_set(written):
    tree = written("diml", SCENES)
    samples = {s.sample_id: s for s in DIML().list(tree.root).samples if s.sample_id not in tree.traps}
    assert {s.split for s in samples.values()} == {None, "test"}
    assert samples["test/rendered_room/in_k_00_170101_000003"].group == "rendered_room"
    assert samples["1. Rendered Room/170101/1/in_k_00_170101_000000"].group == "1. Rendered Room"
    assert len(samples) == SCENES


@pytest.mark.parametrize(("name", "source"), [("diml", DIML()), ("diml_outdoor", DIMLOutdoor())])
def test_values_are_the_scenes_metres(name, source, written):
    tree = written(name, SCENES)
    for sample in good_samples(source, tree):
        [scene] = tree.scenes[int(sample.sample_id[-6:])]
        raw = source.read(tree.root, sample)
        assert not (raw.valid & (scene.depth > 65.5)).any()
        assert np.abs(raw.target - scene.depth)[raw.valid].max() < 0.0006
        assert raw.valid.mean() > 0.2


def test_millimetres_become_metres_and_zero_is_invalid(tmp_path):
    pair(tmp_path, "16. Billiard Hall/170301/2/col/a_c.png", "16. Billiard Hall/170301/2/up_png/a_ud.png")
    raw = read_first(DIML(), tmp_path)
    assert (raw.valid.tolist(), raw.target.tolist()) == ([[False, True, True]], [[0, np.float32(0.001), 2.5]])


@pytest.mark.parametrize("postfix", ["ud", "up_depth", "depth_vi_2"])
def test_what_follows_the_stem_may_be_anything(tmp_path, postfix):
    batch = "2. Cafe/160101/1"
    for stem in ("in_k_1", "in_k_1_2", "in"):
        pair(tmp_path, f"{batch}/col/{stem}_c.png", f"{batch}/up_png/{stem}_{postfix}.png")
    listing = DIML().list(Folder(tmp_path))
    assert not listing.rejected
    depths = {s.sample_id: s.files["depth"] for s in listing.samples}
    assert depths == {
        f"{batch}/{stem}": f"{batch}/up_png/{stem}_{postfix}.png" for stem in ("in", "in_k_1", "in_k_1_2")
    }


def test_same_names_in_two_batches_are_two_samples(tmp_path):
    for batch in ("1", "2"):
        pair(tmp_path, f"2. Cafe/160101/{batch}/col/a_c.png", f"2. Cafe/160101/{batch}/up_png/a_ud.png")
    assert [s.sample_id for s in DIML().list(Folder(tmp_path)).samples] == [
        "2. Cafe/160101/1/a",
        "2. Cafe/160101/2/a",
    ]


@pytest.mark.parametrize("prefix", ["", "indoor/", "DIML/indoor/"])
def test_low_resolution_is_used_only_where_there_is_no_high(tmp_path, prefix):
    for resolution, stems in {"HR": ("a",), "LR": ("a", "b")}.items():
        for stem in stems:
            place = f"{prefix}train/{resolution}/cafe"
            pair(tmp_path, f"{place}/color/{stem}_c.png", f"{place}/depth_filled/{stem}_depth_filled.png")
    listing = DIML().list(Folder(tmp_path))
    assert not listing.rejected
    assert [(s.sample_id, "HR" in s.files["image"], "HR" in s.files["depth"]) for s in listing.samples] == [
        ("train/cafe/a", True, True),
        ("train/cafe/b", False, False),
    ]
    assert {s.split for s in listing.samples} == {"train"}


def test_high_resolution_without_depth_falls_back(tmp_path):
    for resolution in ("HR", "LR"):
        place = f"train/{resolution}/cafe"
        pair(tmp_path, f"{place}/color/a_c.png", f"{place}/depth_filled/a_depth_filled.png")
    (tmp_path / "train/HR/cafe/depth_filled/a_depth_filled.png").unlink()
    [sample] = DIML().list(Folder(tmp_path)).samples
    assert all("LR" in path for path in sample.files.values())


def test_indoor_map_without_image_is_left_out(tmp_path):
    put_png(tmp_path, "2. Cafe/160101/1/up_png/a_ud.png", np.zeros((1, 3), np.uint16))
    assert "no colour image" in left_out(DIML(), tmp_path)[0]


def test_8_bit_depth_is_refused(tmp_path):
    put_png(tmp_path, "2. Cafe/160101/1/col/a_c.png", np.zeros((1, 3, 3), np.uint8))
    put_png(tmp_path, "2. Cafe/160101/1/up_png/a_ud.png", np.zeros((1, 3), np.uint8))
    with pytest.raises(BadSample, match="8 bits"):
        read_first(DIML(), tmp_path)


def test_outdoor_confidence_masks(tmp_path):
    batch = "170721_C0/A"
    pair(tmp_path, f"{batch}/left/a_left.png", f"{batch}/depth/a_depth.png", [[1000, 1000, 1000, 0]])
    put_png(tmp_path, f"{batch}/conf/a_conf.png", np.array([[152, 153, 255, 255]], np.uint8))
    root = Folder(tmp_path)
    [sample] = DIMLOutdoor().list(root).samples
    assert (sample.group, sample.split) == (batch, None)
    assert DIMLOutdoor().read(root, sample).valid.tolist() == [[False, True, True, False]]


def test_outdoor_photo_without_confidence_is_left_out(tmp_path):
    pair(tmp_path, "170721_C0/A/left/a_left.png", "170721_C0/A/depth/a_depth.png")
    assert left_out(DIMLOutdoor(), tmp_path) == ["a has no confidence"]


def test_outdoor_confidence_of_another_size_is_refused(tmp_path):
    pair(tmp_path, "170721_C0/A/left/a_left.png", "170721_C0/A/depth/a_depth.png")
    put_png(tmp_path, "170721_C0/A/conf/a_conf.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(BadSample, match=r"^conf has shape \(2, 3\), depth \(1, 3\)$"):
        read_first(DIMLOutdoor(), tmp_path)


def test_outdoor_sample_set_has_no_confidence(tmp_path):
    pair(tmp_path, "outdoor/test/HR/outleft/0001.png", "outdoor/test/HR/depthmap/0001.png")
    root = Folder(tmp_path)
    [sample] = DIMLOutdoor().list(root).samples
    assert (sample.sample_id, sample.split) == ("test/outdoor/0001", "test")
    assert DIMLOutdoor().read(root, sample).valid.tolist() == [[False, True, True]]
