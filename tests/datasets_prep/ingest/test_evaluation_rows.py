"""Rows for evaluation keep bytes, resolution and precision; segmentation rows keep classes."""

import blosc2
import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_rgb, encode_jpeg, encode_png
from datasets_prep.ingest.evaluation_rows import evaluation_depth_columns
from datasets_prep.ingest.label_rows import label_columns
from datasets_prep.ingest.row import pixel_columns
from datasets_prep.schema import decode_depth, decode_image, decode_inverse_depth, decode_label
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.sources.base import IGNORED_LABEL, RawLabels, RawSample

SETTINGS = IngestSettings().model_copy(update={"side": 8})
NATIVE_SIZE = SETTINGS.model_copy(update={"resize": "none"})
PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def raw_sample(**changes: object) -> RawSample:
    depth = np.linspace(1, 7, 600, dtype=np.float32).reshape(20, 30)
    values = {"image": encode_png(PICTURE), "target": depth, "quantity": "depth", "valid": depth > 1.5}
    return RawSample(**{**values, **changes})


@pytest.mark.parametrize("image", [encode_png(PICTURE), encode_jpeg(PICTURE)])
def test_image_bytes_and_every_bit_of_depth_are_kept(image):
    raw = raw_sample(image=image)
    row = evaluation_depth_columns(raw, "metric")
    assert row["image"] == image
    np.testing.assert_array_equal(decode_image(row["image"]), decode_rgb(image))
    depth = decode_depth(row["depth"], row["height"], row["width"])
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.where(raw.valid, raw.target, np.nan))


def test_depth_is_read_without_our_code():
    row = evaluation_depth_columns(raw_sample(), "metric")
    values = np.frombuffer(blosc2.decompress2(row["depth"]), np.float32).reshape(row["height"], row["width"])
    np.testing.assert_array_equal(values, decode_depth(row["depth"], 20, 30))


def test_statistics_mean_what_they_mean_for_training_rows():
    raw = raw_sample()
    native = evaluation_depth_columns(raw, "metric")
    trained = pixel_columns(raw, SOURCES["tum"], "train", NATIVE_SIZE)
    for name in ("valid_share", "inverse_depth_min", "inverse_depth_median", "inverse_depth_max", "scale"):
        assert native[name] == pytest.approx(trained[name], rel=1e-3)


def test_the_split_decides(tmp_path):
    test = pixel_columns(raw_sample(), SOURCES["kitti"], "test", SETTINGS)
    train = pixel_columns(raw_sample(), SOURCES["kitti"], "train", SETTINGS)
    assert (test["height"], test["width"]) == (20, 30)
    assert "inverse_depth" not in test
    assert (train["height"], train["width"]) == (8, 12)
    assert "depth" not in train


def test_without_resizing_training_rows_keep_their_size():
    row = pixel_columns(raw_sample(), SOURCES["kitti"], "train", NATIVE_SIZE)
    assert (row["height"], row["width"]) == (20, 30)
    assert decode_image(row["image"]).shape == (20, 30, 3)
    stored = decode_inverse_depth(row["inverse_depth"], 20, 30).astype(np.float64) * row["scale"]
    raw = raw_sample()
    np.testing.assert_allclose(1 / stored[raw.valid], raw.target[raw.valid], rtol=1e-3)


@pytest.mark.parametrize(("changes", "message"), [
    ({"target": np.ones((10, 30), np.float32), "valid": np.ones((10, 30), bool)}, "size mismatch"),
    ({"valid": np.zeros((20, 30), bool)}, "ground truth is empty"),
    ({"image": encode_png(PICTURE)[:-20]}, "^image PNG truncated"),
])  # fmt: skip
def test_damaged_samples_are_refused(changes, message):
    with pytest.raises(BadSample, match=message):
        evaluation_depth_columns(raw_sample(**changes), "metric")


def test_a_single_valid_pixel_is_ground_truth():
    valid = np.zeros((20, 30), bool)
    valid[3, 4] = True
    row = evaluation_depth_columns(raw_sample(valid=valid), "metric")
    assert np.argwhere(~np.isnan(decode_depth(row["depth"], 20, 30))).tolist() == [[3, 4]]
    assert row["valid_share"] == 1 / 600


def test_another_size_of_stored_depth_is_refused():
    row = evaluation_depth_columns(raw_sample(), "metric")
    with pytest.raises(ValueError, match=r"depth declares 2400 bytes .* 20x31 float32 needs 2480"):
        decode_depth(row["depth"], 20, 31)


# ---- Labels
def raw_labels() -> RawLabels:
    labels = np.repeat(np.arange(30, dtype=np.uint8)[None] // 3, 20, axis=0)
    labels[:2] = IGNORED_LABEL
    return RawLabels(encode_jpeg(PICTURE), labels)


def test_labels_are_resized_without_new_classes():
    row = label_columns(raw_labels(), SETTINGS, for_evaluation=False)
    labels = decode_label(row["label"])
    assert labels.shape == decode_image(row["image"]).shape[:2] == (8, 12)
    assert set(np.unique(labels)) == {*range(10), IGNORED_LABEL}
    assert row["valid_share"] == pytest.approx(0.9)


def test_labels_for_evaluation_keep_image_bytes_and_size():
    raw = raw_labels()
    row = pixel_columns(raw, SOURCES["ade20k"], "val", SETTINGS)
    assert row["image"] == raw.image
    np.testing.assert_array_equal(decode_label(row["label"]), raw.labels)


@pytest.mark.parametrize(("labels", "message"), [
    (np.zeros((10, 30), np.uint8), "image is 30x20, label map is 30x10"),
    (np.full((20, 30), IGNORED_LABEL, np.uint8), "only 0.00% of the pixels are labelled"),
])  # fmt: skip
def test_label_maps_that_cannot_be_used(labels, message):
    with pytest.raises(BadSample, match=message):
        pixel_columns(RawLabels(encode_jpeg(PICTURE), labels), SOURCES["ade20k"], "train", SETTINGS)


def test_a_label_of_16_bits_is_refused():
    with pytest.raises(ValueError, match="label PNG has 16 bits"):
        decode_label(encode_png(np.ones((2, 3), np.uint16)))
