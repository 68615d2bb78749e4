"""HRWSI: official split, disparity, masks, missing files."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.hrwsi import HRWSI
from datasets_prep.storage.folder import Folder
from tests.support.raw_files import good_samples, put, read_first

SCENES = 9


def test_official_split(written):
    tree = written("hrwsi", SCENES)
    samples = good_samples(HRWSI(), tree)
    assert [s.sample_id for s in samples if s.split == "val"] == ["val/000007"]
    train = [s for s in samples if s.split == "train"]
    assert [s.sample_id for s in train] == [f"train/{i:06d}" for i in (0, 1, 2, 3, 4, 5, 6, 8)]


def test_values_are_the_scenes_inverse_depth_up_to_scale_and_shift(written):
    tree = written("hrwsi", SCENES)
    for sample in good_samples(HRWSI(), tree):
        [scene] = tree.scenes[int(sample.sample_id[-6:])]
        raw = HRWSI().read(tree.root, sample)
        assert raw.quantity == "inverse_depth"
        assert raw.sky is None
        inverse = 1 / scene.depth
        inside = inverse < np.quantile(inverse, 0.98)  # the nearest hundredth is cut
        design = np.stack([inverse[inside], np.ones(inside.sum())], axis=1)
        solution, *_ = np.linalg.lstsq(design, raw.target[inside], rcond=None)
        assert solution[0] > 0
        assert np.abs(design @ solution - raw.target[inside]).max() < 1 / 255


def test_mask_and_values_typed_by_hand(tmp_path):
    write(tmp_path, np.array([[0, 51, 255]], np.uint8), np.array([[0, 1, 255]], np.uint8))
    raw = read_first(HRWSI(), tmp_path)
    assert (raw.target.tolist(), raw.valid.tolist()) == ([[0.0, np.float32(0.2), 1.0]], [[False, True, True]])


def test_16_bit_disparity_has_the_same_range(tmp_path):
    write(tmp_path, np.array([[0, 13107, 65535]], np.uint16), np.full((1, 3), 255, np.uint8))
    raw = read_first(HRWSI(), tmp_path)
    assert raw.target.tolist() == [[0.0, np.float32(0.2), 1.0]]


@pytest.mark.parametrize("missing", ["imgs/a.jpg", "gts/a.png", "valid_masks/a.png"])
def test_incomplete_triplet_is_left_out(tmp_path, missing):
    write(tmp_path, np.zeros((1, 3), np.uint8), np.zeros((1, 3), np.uint8))
    (tmp_path / "train" / missing).unlink()
    listing = HRWSI().list(Folder(tmp_path))
    assert not listing.samples
    [rejection] = listing.rejected
    assert rejection.reason == f"a is missing from train/{missing.split('/')[0]}"


def test_mask_of_another_size_is_refused(tmp_path):
    write(tmp_path, np.zeros((1, 3), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(BadSample, match=r"^depth is 3x1, its mask 3x2$"):
        read_first(HRWSI(), tmp_path)


def write(root, disparity, mask):
    image = formats.encode_jpeg(np.zeros((*disparity.shape, 3), np.uint8))
    maps = {"gts/a.png": formats.encode_png(disparity), "valid_masks/a.png": formats.encode_png(mask)}
    put(root / "train", {"imgs/a.jpg": image, **maps})
