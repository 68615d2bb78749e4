import itertools
from fractions import Fraction

import cv2
import numpy as np
import pytest
import simplejpeg

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import encode_png
from datasets_prep.ingest.normalize import normalize, normalize_target, resize_nearest_valid, resized_shape
from datasets_prep.schema import decode_image, decode_inverse_depth
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import RawSample

SETTINGS = IngestSettings(side=32)
LARGE = IngestSettings(side=48)


def raw_sample(height: int = 48, width: int = 64, **changes: object) -> RawSample:
    rows = np.linspace(2.0, 10.0, height, dtype=np.float32)
    target = np.repeat(rows[:, None], width, axis=1)
    image = simplejpeg.encode_jpeg(np.full((height, width, 3), 90, np.uint8))
    values = {"image": image, "target": target, "quantity": "depth", "valid": np.ones((height, width), bool)}
    return RawSample(**{**values, **changes})


def overlapping(old: int, new: int, i: int) -> list[int]:
    """Source pixels [k, k + 1) that overlap the footprint [i · old / new, (i + 1) · old / new)."""
    start, end = Fraction(i * old, new), Fraction((i + 1) * old, new)
    return [k for k in range(old) if min(end, k + 1) > max(start, k)]


def candidates(valid: np.ndarray, shape: tuple[int, int], i: int, j: int) -> dict[tuple[int, int], Fraction]:
    """Valid source pixels under an output pixel → squared distance of the centres, in exact fractions."""
    (height, width), (rows, columns), half = valid.shape, shape, Fraction(1, 2)
    y, x = (i + half) * Fraction(height, rows), (j + half) * Fraction(width, columns)
    under = itertools.product(overlapping(height, rows, i), overlapping(width, columns, j))
    return {(v, u): (v + half - y) ** 2 + (u + half - x) ** 2 for v, u in under if valid[v, u]}


@pytest.mark.parametrize("shape", [(7, 9), (16, 24), (20, 30), (21, 31), (40, 30), (13, 60), (1, 45)])
def test_resizing_takes_the_nearest_valid_pixel_of_the_footprint(shape):
    valid = np.random.default_rng(1).random((20, 30)) < 0.3
    # Every value is its own position, so that the chosen pixel is known.
    values = np.arange(600, dtype=np.float32).reshape(20, 30)
    out, out_valid = resize_nearest_valid(values, valid, shape)
    for i, j in np.ndindex(shape):
        under = candidates(valid, shape, i, j)
        assert out_valid[i, j] == bool(under)
        if under:
            assert under[divmod(int(out[i, j]), 30)] == min(under.values())


@pytest.mark.parametrize(("pixel", "covers"), [
    # 10 → 8: footprints end at 1.25, 2.5, 3.75, 5, 6.25, …, so that pixel 1 lies under outputs 0 and 1.
    (0, [0]), (1, [0, 1]), (2, [1, 2]), (3, [2, 3]), (4, [3]),
    (5, [4]), (6, [4, 5]), (7, [5, 6]), (8, [6, 7]), (9, [7]),
])  # fmt: skip
def test_a_valid_pixel_reaches_no_output_pixel_beside_it(pixel, covers):
    valid = np.zeros((10, 10), bool)
    valid[pixel, 5] = True
    _, out_valid = resize_nearest_valid(np.ones((10, 10), np.float32), valid, (8, 8))
    assert np.argwhere(out_valid).tolist() == [[i, 4] for i in covers]


def test_no_output_pixel_of_vga_is_valid_without_a_valid_pixel_under_it():
    valid = np.random.default_rng(2).random((480, 640)) < 0.05
    _, out_valid = resize_nearest_valid(np.ones((480, 640), np.float32), valid, (384, 512))
    # From 5 to 4 pixels, each side: in a block, output i lies on the source pixels i and i + 1.
    blocks = valid.reshape(96, 5, 128, 5)
    under = blocks[:, :4, :, :4] | blocks[:, 1:, :, :4] | blocks[:, :4, :, 1:] | blocks[:, 1:, :, 1:]
    np.testing.assert_array_equal(out_valid, under.reshape(384, 512))


def test_resizing_never_makes_up_a_value_across_an_edge():
    values = np.where(np.arange(40)[None, :] < 21, 1.0, 100.0).repeat(30, axis=0).astype(np.float32)
    out, _ = resize_nearest_valid(values, np.ones_like(values, bool), (11, 17))
    assert set(np.unique(out)) == {1.0, 100.0}


def test_resized_shape_keeps_the_aspect():
    assert resized_shape(480, 640, 384, "shorter") == (384, 512)
    assert resized_shape(480, 640, 384, "longer") == (288, 384)
    assert resized_shape(640, 480, 384, "shorter") == (512, 384)
    assert resized_shape(10, 5000, 384, "longer") == (1, 384)


def test_metric_depth_is_recovered_by_the_scale():
    target = normalize_target(raw_sample(), "metric", (24, 32), 0.01)
    assert target.scale is not None
    metres = 1 / (target.inverse_depth.astype(np.float64) * target.scale)
    assert target.inverse_depth.max() == 1.0
    source = raw_sample().target
    expected = source[((np.arange(24) + 0.5) * 2).astype(int), 0]
    np.testing.assert_allclose(metres[:, 0], expected, rtol=1e-3)


def test_up_to_scale_keeps_zero_at_infinity_and_has_no_scale():
    target = normalize_target(raw_sample(), "up-to-scale", (48, 64), 0.01)
    np.testing.assert_allclose(target.inverse_depth[:, 0], 2.0 / raw_sample().target[:, 0], rtol=1e-3)
    assert target.scale is None


def test_affine_targets_are_stretched_to_the_unit_interval():
    sample = raw_sample(
        quantity="inverse_depth", target=np.linspace(-5, 7, 48 * 64, dtype=np.float32).reshape(48, 64)
    )
    target = normalize_target(sample, "affine", (48, 64), 0.01)
    assert (target.inverse_depth.min(), target.inverse_depth.max(), target.scale) == (0.0, 1.0, None)


def test_sky_is_valid_and_infinitely_far_but_a_surface_wins_over_it():
    sky = np.zeros((48, 64), bool)
    sky[:24] = True
    valid = ~sky
    valid[0, 0] = True
    target = normalize_target(raw_sample(valid=valid, sky=sky), "metric", (48, 64), 0.01)
    assert (target.inverse_depth[1:24] == 0).all()
    assert target.inverse_depth[0, 0] > 0
    assert target.sky_share == pytest.approx((24 * 64 - 1) / (48 * 64))


def test_nan_inf_zero_and_negative_depth_are_invalid():
    depth = raw_sample().target.copy()
    depth[0], depth[1], depth[2], depth[3], depth[4] = np.nan, np.inf, 0.0, -1.0, 1e-45
    target = normalize_target(raw_sample(target=depth), "metric", (48, 64), 0.01)
    assert np.isnan(target.inverse_depth[:5]).all()
    assert not np.isnan(target.inverse_depth[5:]).any()


def test_too_little_ground_truth_is_refused_with_the_share():
    valid = np.zeros((48, 64), bool)
    valid[0, 0] = True
    with pytest.raises(BadSample, match=r"only 0\.03% of the pixels have valid ground truth"):
        normalize(raw_sample(height=48, valid=valid), "metric", LARGE)


def test_flat_ground_truth_is_refused():
    flat = np.full((48, 64), 3.0, np.float32)
    with pytest.raises(BadSample, match="one value"):
        normalize(raw_sample(target=flat), "metric", SETTINGS)


def test_a_size_mismatch_is_refused_unless_the_source_allows_it():
    sample = raw_sample(
        target=np.linspace(1, 2, 100, dtype=np.float32).reshape(10, 10), valid=np.ones((10, 10), bool)
    )
    with pytest.raises(BadSample, match="image is 64x48, ground truth is 10x10"):
        normalize(sample, "metric", SETTINGS)
    row = normalize(sample, "metric", SETTINGS, sizes_may_differ=True)
    assert (row["height"], row["width"]) == (32, 43)


def test_a_row_holds_image_and_inverse_depth_of_one_size_and_its_statistics():
    row = normalize(raw_sample(), "metric", SETTINGS)
    image = decode_image(row["image"])
    inverse_depth = decode_inverse_depth(row["inverse_depth"], row["height"], row["width"])
    assert image.shape[:2] == inverse_depth.shape == (32, 43)
    assert (row["valid_share"], row["inverse_depth_max"]) == (1.0, 1.0)
    assert row["inverse_depth_min"] == pytest.approx(float(inverse_depth.min()))
    assert row["inverse_depth_median"] == pytest.approx(float(np.median(inverse_depth)), rel=1e-3)


def test_a_jpeg_of_the_right_size_keeps_its_bytes_and_a_png_becomes_jpeg():
    sample = raw_sample()
    kept = normalize(sample, "metric", LARGE)
    assert kept["image"] == sample.image
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 3)
    encoded = normalize(raw_sample(image=encode_png(picture)), "metric", LARGE)
    assert np.abs(decode_image(encoded["image"]).astype(int) - picture).mean() < 3


def tilted(span: float, height: int = 48, width: int = 64) -> np.ndarray:
    """Depth whose 98th percentile of inverse depth is about `span` times the 2nd."""
    rows = np.linspace(1.0, 1.0 / span, height)
    return np.repeat(1 / rows[:, None], width, axis=1).astype(np.float32)


@pytest.mark.parametrize("kind", ["metric", "up-to-scale"])
def test_flat_maps_are_refused_by_their_dynamic_range(kind):
    sample = raw_sample(target=tilted(1.3))
    assert normalize(sample, kind, IngestSettings(side=32, min_dynamic_range=1.2))
    with pytest.raises(BadSample, match=r"ground truth is flat: .* a factor of 1\.\d+, at least 1.5 needed"):
        normalize(sample, kind, IngestSettings(side=32, min_dynamic_range=1.5))


def test_a_few_outliers_do_not_make_a_map_deep():
    wall = np.full((48, 64), 3.0, np.float32)
    wall[0, :20] = 1.0
    with pytest.raises(BadSample, match="ground truth is flat"):
        normalize(raw_sample(target=wall), "metric", LARGE)


@pytest.mark.parametrize(("outliers", "flat"), [(0.0, True), (2.0, True), (None, False)])
def test_affine_maps_are_flat_where_nothing_but_outliers_differs(outliers, flat):
    values = np.full((48, 64), 1.0, np.float32)
    if outliers is None:
        values = np.linspace(0.5, 0.6, values.size, dtype=np.float32).reshape(values.shape)
    else:
        values[0, :20] = outliers
    sample, rules = raw_sample(target=values, quantity="inverse_depth"), LARGE
    if flat:
        with pytest.raises(BadSample, match="ground truth is flat"):
            normalize(sample, "affine", rules)
    else:
        assert normalize(sample, "affine", rules)


def test_a_wall_before_the_sky_is_not_flat():
    sky = np.zeros((48, 64), bool)
    sky[:10] = True
    sample = raw_sample(target=np.full((48, 64), 3.0, np.float32), sky=sky, valid=~sky)
    assert normalize(sample, "metric", SETTINGS)["sky_share"] > 0.1


def test_without_a_resize_rule_sizes_are_kept():
    assert resized_shape(375, 1242, 384, "none") == (375, 1242)


@pytest.mark.parametrize("side", [96, 77, 60, 40, 33, 150])
def test_image_and_ground_truth_stay_in_one_frame_of_reference(side):
    # Inverse depth is the brightness of the photo, of which no two parts are alike.
    grain = np.random.default_rng(4).normal(size=(96, 140)).astype(np.float32)
    smooth = cv2.normalize(cv2.GaussianBlur(grain, (0, 0), 3), None, 0.1, 0.9, cv2.NORM_MINMAX)
    picture = np.repeat(np.round(smooth * 255).astype(np.uint8)[..., None], 3, axis=2)
    sample = raw_sample(96, 140, image=encode_png(picture), target=smooth, quantity="inverse_depth")
    row = normalize(sample, "metric", IngestSettings(side=side, jpeg_quality=98))
    brightness = decode_image(row["image"])[..., 1].astype(float)
    truth = decode_inverse_depth(row["inverse_depth"], row["height"], row["width"]).astype(float)
    correlations = {
        (down, right): np.corrcoef(
            brightness[2:-2, 2:-2].ravel(), np.roll(truth, (down, right), (0, 1))[2:-2, 2:-2].ravel()
        )[0, 1]
        for down, right in itertools.product((-1, 0, 1), repeat=2)
    }
    assert max(correlations, key=correlations.__getitem__) == (0, 0)
    assert correlations[0, 0] > 0.99
    # A shift of half a pixel to one side would make the two neighbours unequal.
    assert abs(correlations[0, 1] - correlations[0, -1]) < 0.05
    assert abs(correlations[1, 0] - correlations[-1, 0]) < 0.05
