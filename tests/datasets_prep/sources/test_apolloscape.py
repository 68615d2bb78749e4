"""ApolloScape: 16-bit disparity, both invalid values, video groups, and a real map."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.apolloscape import ApolloScape
from datasets_prep.storage.folder import Folder
from tests.support.paths import SAMPLES
from tests.support.raw_files import good_samples, left_out, put, read_first

SCENES = 4
REAL = SAMPLES / "apolloscape"
TIME = "171206_034559609"


def write(root, values):
    put_pair(root, values.shape, formats.encode_png(values))


def put_pair(root, shape, disparity):
    files = {
        f"camera_5/{TIME}_Camera_5.jpg": formats.encode_jpeg(np.zeros((*shape, 3), np.uint8)),
        f"disparity/{TIME}_Camera_5.png": disparity,
    }
    put(root / "stereo_train_001", files)


def test_values_are_the_scenes_inverse_depth_up_to_scale(written):
    tree = written("apolloscape", SCENES)
    samples = good_samples(ApolloScape(), tree)
    assert len(samples) == SCENES
    for sample in samples:
        [scene] = tree.scenes[int(sample.sample_id[-5:])]
        raw = ApolloScape().read(tree.root, sample)
        assert raw.quantity == "inverse_depth"
        np.testing.assert_array_equal(raw.valid, ~scene.sky)
        within = (scene.depth > 3) & (scene.depth < 60)
        product = raw.target[within] * scene.depth[within]
        assert np.median(product) > 1000  # stored times 200
        np.testing.assert_allclose(product, np.median(product), rtol=1e-3)


def test_only_0_and_65535_are_invalid(tmp_path):
    write(tmp_path, np.array([[0, 1, 255, 256, 65534, 65535]], np.uint16))
    raw = read_first(ApolloScape(), tmp_path)
    assert raw.valid.tolist() == [[False, True, True, True, True, False]]
    assert raw.target.tolist() == [[0, 1, 255, 256, 65534, 0]]
    assert raw.sky is None


def test_frames_of_one_minute_are_a_group(tmp_path):
    write(tmp_path, np.ones((1, 2), np.uint16))
    [sample] = ApolloScape().list(Folder(tmp_path)).samples
    assert (sample.sample_id, sample.group) == (f"stereo_train_001/{TIME}", "stereo_train_001/171206_0345")


def test_right_camera_and_scene_parsing_release_are_ignored(tmp_path):
    others = (
        "stereo_train_001/camera_6/171206_034559609_Camera_6.jpg",
        "stereo_train_001/fg_mask/171206_034559609_Camera_5.png",
        "road02_ins_depth/Depth/Record001/Camera 5/170927_063811892_Camera_5.png",
    )
    put(tmp_path, dict.fromkeys(others, b""))
    assert left_out(ApolloScape(), tmp_path) == []


def test_8_bit_disparity_is_refused(tmp_path):
    write(tmp_path, np.ones((1, 2), np.uint8))
    with pytest.raises(BadSample, match="8 bits"):
        read_first(ApolloScape(), tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real sample beside the repository")
def test_real_map_is_valid_exactly_in_its_masks(tmp_path):
    name = f"{TIME}_Camera_5"
    put_pair(tmp_path, (2710, 3384), (REAL / "disparity" / f"{name}.png").read_bytes())
    raw = read_first(ApolloScape(), tmp_path)
    near, far = (
        formats.decode_grey_png((REAL / mask / f"{name}.png").read_bytes(), "mask") > 0
        for mask in ("fg_mask", "bg_mask")
    )
    np.testing.assert_array_equal(raw.valid, near | far)
    assert 2 <= raw.target[raw.valid].min() < raw.target.max() <= 163


@pytest.mark.parametrize(("factor", "unit"), [(200, 1.0), (1, 1 / 200)])
def test_with_the_files_factor_depth_is_metric(written, factor, unit):
    tree = written("apolloscape", SCENES)
    source = ApolloScape().opened(tree.root, {"disparity_factor": factor})
    assert source.target_kind == "metric"
    sample = next(s for s in source.list(tree.root).samples if s.sample_id not in tree.traps)
    [scene] = tree.scenes[int(sample.sample_id[-5:])]
    raw = source.read(tree.root, sample)
    within = (scene.depth > 3) & (scene.depth < 60)
    np.testing.assert_allclose(1 / raw.target[within], unit * scene.depth[within], rtol=1e-3)


@pytest.mark.parametrize(("options", "message"), [
    ({"disparity_factor": 100}, "options.disparity_factor: expected 1 or 200, got 100"),
    ({"factor": 200}, "options: apolloscape has disparity_factor only, got .'factor'."),
])  # fmt: skip
def test_wrong_options_are_refused(written, options, message):
    with pytest.raises(WrongLayout, match=message):
        ApolloScape().opened(written("apolloscape", 1).root, options)
