import subprocess
import sys

import numpy as np
import pytest

from datasets_prep.formats.pictures import decode_grey_png, encode_jpeg
from datasets_prep.ingest.normalize import normalize
from datasets_prep.schema import encode_inverse_depth
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import RawSample
from pipelines.config import MetricDepthSection, TrainConfig
from pipelines.config_files import load_section
from pipelines.loading.metric_crops import (
    MetricDepthCrops,
    change_colours,
    metres,
    training_window,
    turned_crop,
)
from tests.support.paths import SAMPLES

PLAIN = MetricDepthSection(rotation=0.0, coloured=0.0)


def row(height: int = 48, width: int = 64, scale: float | None = 0.5) -> dict[str, object]:
    """Inverse depth that grows to the right and downwards; the first row has none, one pixel is sky."""
    inverse = np.linspace(0.1, 1.0, height * width, dtype=np.float32).reshape(height, width)
    inverse[0], inverse[10, 10] = np.nan, 0.0
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    pixels = {"image": encode_jpeg(image, 100), "inverse_depth": encode_inverse_depth(inverse)}
    return {"sample_id": "one", **pixels, "height": height, "width": width, "scale": scale}


def made(
    crops: MetricDepthCrops, draws: object, source: dict[str, object] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A crop in memory that held something else before."""
    image, target = np.full((*crops.size, 3), 99, np.uint8), np.full(crops.size, 99, np.float32)
    numbers = np.full(10, 0.9)
    numbers[: len(draws)] = draws
    crops(source or row(), numbers, image, target)
    return image, target


def test_targets_are_metres_and_sky_and_holes_are_none():
    _, target = made(MetricDepthCrops((48, 64), False, PLAIN), [0, 0, 0])
    inverse = np.linspace(0.1, 1.0, 48 * 64, dtype=np.float32).reshape(48, 64).astype(np.float16)
    expected = 1 / (inverse.astype(np.float64) * 0.5)
    expected[0], expected[10, 10] = np.nan, np.nan
    np.testing.assert_allclose(target, expected, rtol=1e-6)


def test_turning_by_nothing_is_a_plain_crop():
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    inverse = np.random.default_rng(2).random((40, 60)).astype(np.float16)
    inverse[5, 30] = np.nan
    for mirror in (False, True):
        out, inverse_out = np.empty((16, 32, 3), np.uint8), np.empty((16, 32), np.float16)
        turned_crop(image, inverse, np.asarray([0.5, 0.5]), 0.0, mirror, out, inverse_out)
        top, left = int(0.5 * 25), int(0.5 * 29)
        step = -1 if mirror else 1
        np.testing.assert_array_equal(out, image[top : top + 16, left : left + 32][:, ::step])
        np.testing.assert_array_equal(inverse_out, inverse[top : top + 16, left : left + 32][:, ::step])


def test_a_quarter_turn_is_that_of_numpy():
    image = np.random.default_rng(1).integers(0, 255, (33, 33, 3), dtype=np.uint8)
    inverse = np.random.default_rng(2).random((33, 33)).astype(np.float16)
    out, inverse_out = np.empty_like(image), np.empty_like(inverse)
    turned_crop(image, inverse, np.zeros(2), 90.0, False, out, inverse_out)
    np.testing.assert_array_equal(out, np.rot90(image))
    np.testing.assert_array_equal(inverse_out, np.rot90(inverse))


def test_what_comes_from_outside_is_black_and_has_no_depth_and_no_depth_is_made_up():
    image, inverse = np.full((32, 64, 3), 200, np.uint8), np.full((32, 64), 0.25, np.float16)
    inverse[:, 32:] = 0.75
    out, inverse_out = np.empty_like(image), np.empty_like(inverse)
    turned_crop(image, inverse, np.zeros(2), 10.0, False, out, inverse_out)
    outside = np.isnan(inverse_out)
    assert 0 < outside.mean() < 0.3
    assert outside[0, 0]
    assert (out[0, 0] == 0).all()
    assert set(np.unique(inverse_out[~outside])) == {0.25, 0.75}


def test_colours_change_by_gamma_brightness_and_channel():
    image = np.random.default_rng(3).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    draws = np.asarray([0.1, 0.9, 0.0, 0.5, 1.0])
    settings = MetricDepthSection(gamma=(0.8, 1.2), brightness=(0.75, 1.25), colour=(0.9, 1.1))
    factors = (0.75 + 0.5 * 0.9) * np.asarray([0.9, 1.0, 1.1])
    expected = 255 * np.clip((image / 255) ** (0.8 + 0.4 * 0.1) * factors, 0, 1)
    change_colours(image, settings, draws)
    assert np.abs(image - expected).max() <= 0.5 + 1e-9


def test_the_share_of_coloured_crops_is_kept_and_depth_is_not_changed():
    settings = PLAIN.model_copy(update={"coloured": 0.5})
    plain = made(MetricDepthCrops((32, 32), False, PLAIN), [0, 0])
    for draw, changes in ((0.49, True), (0.51, False)):
        image, target = made(MetricDepthCrops((32, 32), False, settings), [0, 0, 0, 0, draw])
        assert (image != plain[0]).any() == changes
        np.testing.assert_array_equal(target, plain[1])


def test_a_crop_is_a_function_of_row_and_draws():
    crops = MetricDepthCrops((32, 48), True, MetricDepthSection(rotation=5.0))
    first, again = (made(crops, [0.3, 0.6, 0.2, 0.9, 0.1, 0.4]) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    other = made(crops, [0.3, 0.6, 0.2, 0.1, 0.1, 0.4])
    assert (other[1] != first[1]).any()


def test_training_uses_the_window_of_its_dataset():
    border = MetricDepthSection(border=(45, 43, 472, 608))
    assert training_window(border, 480, 640) == (slice(45, 472), slice(43, 608))
    assert training_window(MetricDepthSection(kb_crop=True), 375, 1242) == (slice(23, 375), slice(13, 1229))
    assert training_window(PLAIN, 480, 640) == (slice(0, 480), slice(0, 640))


def test_a_border_that_leaves_nothing_of_an_image_is_refused():
    with pytest.raises(ValueError, match="leaves nothing of an image of 64x48"):
        training_window(MetricDepthSection(border=(50, 0, 60, 60)), 48, 64)


def test_depth_without_metric_scale_is_refused_naming_the_sample():
    with pytest.raises(ValueError, match="sample one: its depth has no metric scale"):
        made(MetricDepthCrops((32, 32), True, PLAIN), [], row(scale=None))


def test_infinitely_far_is_no_depth():
    found = metres(np.asarray([0.5, 0.0, np.nan], np.float16), 2.0)
    np.testing.assert_array_equal(found, [1.0, np.nan, np.nan])


@pytest.mark.heavy
def test_loading_processes_need_neither_ray_nor_mlflow():
    modules = "pipelines.loading.crops, pipelines.loading.metric_crops"
    code = f"import sys, {modules}; print({{'ray', 'mlflow'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real files are not here")
@pytest.mark.parametrize(("preset", "picture", "depth", "unit", "size"), [
    ("kitti", "kitti/rgb/0000000005.png", "kitti/depth/0000000005.png", 256.0, (352, 704)),
    ("nyu", "nyuv2_sync/rgb/rgb_00000.jpg", "nyuv2_sync/depth/sync_depth_00000.png", 1000.0, (416, 544)),
])  # fmt: skip
def test_real_frames_give_crops_of_the_published_size_with_their_own_depth(
    preset, picture, depth, unit, size
):
    config = load_section("train", TrainConfig, preset, ["metric_depth.rotation=0"])
    stored = decode_grey_png((SAMPLES / depth).read_bytes(), "depth")
    raw = RawSample((SAMPLES / picture).read_bytes(), (stored / unit).astype(np.float32), "depth", stored > 0)
    columns = normalize(raw, "metric", IngestSettings(resize="none", min_dynamic_range=1.0))
    crops = MetricDepthCrops(config.crop_size, config.flip, config.metric_depth)
    assert crops.size == size
    _, target = made(crops, [0.999, 0.999, 0.9], {"sample_id": preset, **columns})
    # The last crop of what training uses: the lower right corner of the window.
    rows, columns_used = training_window(config.metric_depth, *stored.shape)
    window = stored[rows, columns_used][-size[0] :, -size[1] :]
    expected = np.where(window > 0, window / unit, np.nan)
    np.testing.assert_allclose(target, expected, rtol=6e-4)
    assert np.isfinite(target).mean() > (0.1 if preset == "kitti" else 0.9)
