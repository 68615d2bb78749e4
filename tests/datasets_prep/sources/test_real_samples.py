"""Real files of seven datasets, read without our decoders: the same pixels, depth and validity."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_prep.formats.pictures import decode_rgb
from datasets_prep.plan.shards import open_source
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import RawLabels, RawSample
from datasets_prep.storage.folder import Folder
from tests.support.paths import SAMPLES
from tests.support.raw_files import put, read_first

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no real samples beside the repository")

DRIVE = "2011_09_26_drive_0002_sync"
FILES = {
    "kitti": {
        f"2011_09_26/{DRIVE}/image_02/data/0000000005.png": "kitti/rgb/0000000005.png",
        f"val/{DRIVE}/proj_depth/groundtruth/image_02/0000000005.png": "kitti/depth/0000000005.png",
    },
    "nyuv2": {
        "sync/office/rgb_00000.jpg": "nyuv2_sync/rgb/rgb_00000.jpg",
        "sync/office/sync_depth_00000.png": "nyuv2_sync/depth/sync_depth_00000.png",
    },
    "tum": {
        "rgbd_dataset_freiburg2_desk/rgb/1.000000.png": "tum_rgbd/rgb/1.png",
        "rgbd_dataset_freiburg2_desk/depth/1.010000.png": "tum_rgbd/depth/1.png",
    },
}
"""Dataset → path in its layout → sample file."""
UNITS = {"kitti": 256, "nyuv2": 1000, "tum": 5000}
"""Stored value of one metre."""


def read(name: str, root: Folder) -> RawSample | RawLabels:
    found: RawSample | RawLabels = read_first(open_source(name, root.uri, IngestSettings()), root)
    return found


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def with_pillow_and_numpy(raw: RawSample, picture: np.ndarray, target: np.ndarray, valid: np.ndarray) -> None:
    """Hold a sample against (H, W, 3) uint8, and (H, W) float64 and bool, all read without our code."""
    np.testing.assert_array_equal(decode_rgb(raw.image), picture)
    np.testing.assert_array_equal(raw.valid, valid)
    assert picture.shape[:2] == raw.target.shape
    np.testing.assert_allclose(raw.target[valid], target[valid], rtol=2e-7)


@pytest.mark.parametrize("name", FILES)
def test_metric_depth_in_png(name, tmp_path):
    root = put(tmp_path, {path: (SAMPLES / source).read_bytes() for path, source in FILES[name].items()})
    image, depth = (SAMPLES / source for source in FILES[name].values())
    stored = np.asarray(Image.open(depth)).astype(np.float64)
    raw = read(name, root)
    assert raw.quantity == "depth"
    with_pillow_and_numpy(raw, pixels(image), stored / UNITS[name], stored > 0)


def test_tartanair():
    raw = read("tartanair", Folder(SAMPLES / "tartanair"))
    folder = SAMPLES / "tartanair/abandonedfactory/Easy/P000"
    metres = np.load(folder / "depth_left/000000_left_depth.npy").astype(np.float64)
    sky = metres >= 1000
    with_pillow_and_numpy(raw, pixels(folder / "image_left/000000_left.png"), metres, ~sky)
    np.testing.assert_array_equal(raw.sky, sky)


@pytest.mark.heavy
@pytest.mark.parametrize("factor", [None, 200])
def test_apolloscape(factor, tmp_path):
    """No photo of it is here; the masks of the authors say which pixels are valid."""
    name = "171206_034559609_Camera_5"
    disparity, *masks = (
        np.asarray(Image.open(SAMPLES / "apolloscape" / kind / f"{name}.png")).astype(np.float64)
        for kind in ("disparity", "fg_mask", "bg_mask")
    )
    photo = io.BytesIO()
    Image.new("RGB", disparity.shape[::-1]).save(photo, "JPEG")
    root = put(tmp_path / "stereo_train_001", {
        f"camera_5/{name}.jpg": photo.getvalue(),
        f"disparity/{name}.png": (SAMPLES / f"apolloscape/disparity/{name}.png").read_bytes(),
    })  # fmt: skip
    settings = IngestSettings(options={} if factor is None else {"disparity_factor": factor})
    raw = read_first(open_source("apolloscape", root.uri, settings), Folder(tmp_path))
    inverse_depth = disparity if factor is None else disparity / factor / (2301.3147 * 0.36)
    assert raw.quantity == "inverse_depth"
    np.testing.assert_array_equal(raw.valid, (masks[0] > 0) | (masks[1] > 0))
    np.testing.assert_allclose(raw.target[raw.valid], inverse_depth[raw.valid], rtol=1e-6)


def test_middlebury_as_a_users_own_disparity(tmp_path):
    """`inf` marks pixels without ground truth; depth is focal length · baseline / disparity."""
    scale = 1 / (994.978 * 0.193001)
    with np.load(SAMPLES / "middlebury2014/motorcycle_disp.npz") as arrays:
        [disparity] = arrays.values()
    stream = io.BytesIO()
    np.save(stream, disparity)
    description = f"name: motorcycle\nquantity: disparity\nmetric: true\nscale: {scale!r}\n"
    photo = SAMPLES / "middlebury2014/motorcycle_left.png"
    root = put(tmp_path, {
        "dataset.yaml": description.encode(), "images/left.png": photo.read_bytes(),
        "depth/left.npy": stream.getvalue(),
    })  # fmt: skip
    raw = read("folder", root)
    valid = np.isfinite(disparity) & (disparity != 0)
    assert math.isclose(valid.mean(), np.isfinite(disparity).mean())
    with_pillow_and_numpy(raw, pixels(photo), disparity.astype(np.float64) * scale, valid)


def test_ade20k():
    raw = read("ade20k", Folder(SAMPLES / "ade20k"))
    image, labels = (
        SAMPLES / f"ade20k/{kind}/validation/ADE_val_00000001.{suffix}"
        for kind, suffix in (("images", "jpg"), ("annotations", "png"))
    )
    stored = np.asarray(Image.open(labels)).astype(int)
    np.testing.assert_array_equal(decode_rgb(raw.image), pixels(image))
    np.testing.assert_array_equal(raw.labels, np.where(stored == 0, 255, stored - 1))
