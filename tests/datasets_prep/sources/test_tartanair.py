"""TartanAir: metric depth, sky, the dome, layouts, version 2, and a real frame."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.tartanair import TartanAir
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import VIEWS
from tests.support.paths import SAMPLES
from tests.support.raw_files import good_samples, left_out, put, read_first

SCENES = 3
REAL = SAMPLES / "tartanair"


@pytest.mark.heavy
def test_counts_and_environments(written):
    tree = written("tartanair", SCENES)
    samples = good_samples(TartanAir(), tree)
    assert len(samples) == SCENES * VIEWS
    trajectories = {"rendered000/Easy/P000", "rendered001/Hard/P000", "rendered002/Easy/P001"}
    assert {s.sample_id.rsplit("/", 1)[0] for s in samples} == trajectories
    assert {s.group for s in samples} == {"rendered000", "rendered001", "rendered002"}
    assert samples[0].sample_id == "rendered000/Easy/P000/000000"
    assert all(s.split is None for s in samples)


def test_values_are_the_scenes_depth_in_half_precision(written):
    tree = written("tartanair", SCENES)
    for sample in good_samples(TartanAir(), tree):
        scene = tree.scenes[int(sample.group[-3:])][int(sample.sample_id[-6:])]
        raw = TartanAir().read(tree.root, sample)
        assert raw.quantity == "depth"
        np.testing.assert_array_equal(raw.sky, scene.sky)
        np.testing.assert_array_equal(raw.valid, ~scene.sky)
        np.testing.assert_allclose(raw.target[raw.valid], scene.depth[raw.valid], rtol=2**-11)
        np.testing.assert_array_equal(formats.decode_rgb(raw.image), scene.image)


def test_invalid_and_sky_values(tmp_path):
    depth = np.array([[0, -1, np.nan, np.inf, 0.5, 999, 1000, 65504]], np.float32)
    write(tmp_path / "office" / "Easy" / "P001", depth)
    raw = read_first(TartanAir(), tmp_path)
    assert raw.valid.tolist() == [[False, False, False, False, True, True, False, False]]
    assert raw.sky.tolist() == [[False, False, False, False, False, False, True, True]]
    assert raw.target.tolist() == [[0, 0, 0, 0, 0.5, 999, 0, 0]]


@pytest.mark.parametrize("folder", [
    "office/Hard/P012",
    "office/office/Hard/P012",
    "data/tartanair/office/office/Hard/P012",
    "office/Hard/image_left/office/office/Hard/P012",
])  # fmt: skip
def test_layouts_of_one_folder(tmp_path, folder):
    write(tmp_path / folder, np.ones((2, 2), np.float32))
    [sample] = TartanAir().list(Folder(tmp_path)).samples
    assert (sample.sample_id, sample.group) == ("office/Hard/P012/000000", "office")


def test_trajectories_of_one_environment_are_not_torn_apart(tmp_path):
    for trajectory in ("office/Easy/P000", "office/Hard/P001", "hospital/Easy/P000"):
        write(tmp_path / trajectory, np.ones((2, 2), np.float32))
    groups = [s.group for s in TartanAir().list(Folder(tmp_path)).samples]
    assert groups == ["hospital", "office", "office"]


def test_layout_with_a_folder_for_each_modality(tmp_path):
    write(tmp_path / "office" / "Easy" / "image_left" / "P000", np.ones((2, 2), np.float32))
    target = tmp_path / "office" / "Easy" / "depth_left" / "P000"
    target.mkdir(parents=True)
    (tmp_path / "office" / "Easy" / "image_left" / "P000" / "depth_left").rename(target / "depth_left")
    [sample] = TartanAir().list(Folder(tmp_path)).samples
    assert sample.sample_id == "office/Easy/P000/000000"
    assert sample.files["depth"].startswith("office/Easy/depth_left/P000/depth_left/")


def test_right_camera_and_flow_are_ignored(tmp_path):
    trajectory = tmp_path / "office" / "Easy" / "P000"
    write(trajectory, np.ones((2, 2), np.float32))
    others = ("image_right/000000_right.png", "flow/000000_000001_flow.npy", "pose_left.txt")
    put(trajectory, dict.fromkeys(others, b""))
    listing = TartanAir().list(Folder(tmp_path))
    assert len(listing.samples) == 1
    assert not listing.rejected


def test_depth_without_image_is_left_out(tmp_path):
    write(tmp_path / "office" / "Easy" / "P000", np.ones((2, 2), np.float32))
    (tmp_path / "office" / "Easy" / "P000" / "image_left" / "000000_left.png").unlink()
    assert left_out(TartanAir(), tmp_path) == ["no image image_left/000000_left.png"]


def test_second_copy_of_a_frame_is_left_out(tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder / "office" / "Easy" / "P000", np.ones((2, 2), np.float32))
    listing = TartanAir().list(Folder(tmp_path))
    assert len(listing.samples) == 1
    assert [r.path.split("/")[0] for r in listing.rejected] == ["b", "b"]


def test_close_sky_dome_is_masked_by_labels(tmp_path):
    labels = np.array([[182, 181, 0]], np.uint8)
    write(tmp_path / "amusement" / "amusement" / "Easy" / "P000", np.full((1, 3), 90, np.float32), labels)
    raw = read_first(TartanAir(), tmp_path)
    assert raw.valid.tolist() == [[False, True, True]]
    assert not raw.sky.any()


def test_dome_frames_without_labels_are_left_out(tmp_path):
    write(tmp_path / "amusement" / "Easy" / "P000", np.ones((1, 3), np.float32))
    assert "needed to mask the sky dome of amusement" in left_out(TartanAir(), tmp_path)[0]


def test_labels_are_not_read_elsewhere(tmp_path):
    write(tmp_path / "office" / "Easy" / "P000", np.ones((1, 3), np.float32), np.full((1, 3), 182, np.uint8))
    root = Folder(tmp_path)
    [sample] = TartanAir().list(root).samples
    assert set(sample.files) == {"image", "depth"}
    assert TartanAir().read(root, sample).valid.all()


def test_labels_of_another_size_are_refused(tmp_path):
    write(tmp_path / "amusement" / "Easy" / "P000", np.ones((1, 3), np.float32), np.zeros((2, 3), np.uint8))
    with pytest.raises(BadSample, match=r"^seg has shape \(2, 3\), depth \(1, 3\)$"):
        read_first(TartanAir(), tmp_path)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.int32), np.zeros((0, 4), np.float32)]
)
def test_arrays_that_are_no_map_are_refused(tmp_path, values):
    write(tmp_path / "office" / "Easy" / "P000", values)
    with pytest.raises(BadSample, match=r"^depth NPY (holds .* expected a map|declares 0 values)"):
        read_first(TartanAir(), tmp_path)


@pytest.mark.parametrize("path", [
    "office/Data_easy/P000/image_lcam_front/000000_lcam_front.png",
    "Data_hard/P1003/depth_lcam_back/000000_lcam_back_depth.png",
])  # fmt: skip
def test_version_2_is_refused_by_name(tmp_path, path):
    with pytest.raises(WrongLayout, match="TartanAir V2"):
        TartanAir().list(put(tmp_path, {path: b""}))


@pytest.mark.skipif(not REAL.is_dir(), reason="no real sample beside the repository")
def test_real_frame():
    root = Folder(REAL)
    [sample] = TartanAir().list(root).samples
    assert sample.sample_id == "abandonedfactory/Easy/P000/000000"
    raw = TartanAir().read(root, sample)
    assert raw.target.shape == formats.image_size(raw.image) == (480, 640)
    assert formats.decode_rgb(raw.image).shape == (480, 640, 3)
    assert raw.valid.all()
    assert 1 < raw.target.min() < raw.target.max() < 3
    stored = root.read_bytes(sample.files["depth"])
    assert stored == maps.encode_npy(maps.decode_npy(stored, "depth"))
    np.testing.assert_array_equal(raw.target.astype(np.float16).astype(np.float32), raw.target)


def write(trajectory, depth, labels=None):
    files = {
        "image_left/000000_left.png": formats.encode_png(np.zeros((2, 2, 3), np.uint8)),
        "depth_left/000000_left_depth.npy": maps.encode_npy(depth),
    }
    if labels is not None:
        files["seg_left/000000_left_seg.npy"] = maps.encode_npy(labels)
    put(trajectory, files)
