"""ReDWeb: direction and range of its maps, sky, sizes, layouts."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.redweb import ReDWeb
from datasets_prep.storage.folder import Folder
from tests.support.raw_files import left_out, put, read_first

SCENES = 10


def test_counts_and_grouping(written):
    tree = written("redweb", SCENES)
    listing = ReDWeb().list(tree.root)
    good = [s for s in listing.samples if s.sample_id not in tree.traps]
    assert [s.sample_id for s in good] == [f"{index:06d}" for index in range(SCENES)]
    assert all(s.split is None and s.group == s.sample_id for s in good)
    [rejection] = listing.rejected
    assert rejection.reason == "no map RDs/missing_partner.png"


def test_larger_is_farther_and_255_is_sky(tmp_path):
    stored = np.array([[0, 51, 254, 255]], np.uint8)
    write(tmp_path, "a", stored)
    raw = read_first(ReDWeb(), tmp_path)
    assert raw.quantity == "inverse_depth"
    assert raw.target.tolist() == [[1.0, np.float32(0.8), np.float32(1 / 255), 0.0]]
    assert raw.valid.tolist() == [[True, True, True, False]]
    assert raw.sky.tolist() == [[False, False, False, True]]


def test_values_are_the_scenes_inverse_depth_up_to_scale(written):
    tree = written("redweb", SCENES)
    for sample, [scene] in zip(ReDWeb().list(tree.root).samples, tree.scenes, strict=False):
        raw = ReDWeb().read(tree.root, sample)
        step = scene.depth.shape[0] // raw.target.shape[0]
        inverse = 1 / scene.depth[::step, ::step]
        scale = np.quantile(1 / scene.depth, 0.99)
        np.testing.assert_array_equal(raw.sky, scene.sky[::step, ::step])
        expected = np.minimum(inverse / scale, 1)
        # The largest stored value but sky is 254, and rounding is half a step.
        assert np.abs(raw.target - expected)[raw.valid].max() <= 1.6 / 255


def test_sizes_orientations_and_channels_are_mixed(written):
    tree = written("redweb", SCENES)
    shapes, ratios = set(), set()
    for sample in list(ReDWeb().list(tree.root).samples)[:SCENES]:
        raw = ReDWeb().read(tree.root, sample)
        height, width = formats.image_size(raw.image)
        shapes.add(height > width)
        ratios.add(height / raw.target.shape[0])
    assert shapes == {True, False}
    assert ratios == {1.0, 2.0}
    assert ReDWeb.sizes_may_differ


def test_folder_above_is_accepted(tmp_path):
    write(tmp_path / "ReDWeb_V1", "a", np.zeros((2, 2), np.uint8))
    [sample] = ReDWeb().list(Folder(tmp_path)).samples
    assert sample.files == {"image": "ReDWeb_V1/Imgs/a.jpg", "depth": "ReDWeb_V1/RDs/a.png"}


def test_map_without_image_is_left_out(tmp_path):
    write(tmp_path, "a", np.zeros((2, 2), np.uint8))
    (tmp_path / "Imgs" / "a.jpg").unlink()
    assert left_out(ReDWeb(), tmp_path) == ["no image Imgs/a.jpg"]


def test_16_bit_map_is_refused(tmp_path):
    write(tmp_path, "a", np.zeros((2, 2), np.uint16))
    with pytest.raises(BadSample, match="16 bits"):
        read_first(ReDWeb(), tmp_path)


def write(root, stem, stored):
    image = formats.encode_jpeg(np.zeros((*stored.shape, 3), np.uint8))
    put(root, {f"Imgs/{stem}.jpg": image, f"RDs/{stem}.png": formats.encode_png(stored)})
