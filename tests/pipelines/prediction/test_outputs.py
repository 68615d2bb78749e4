import dataclasses
import io

import cv2
import numpy as np
import PIL.Image
import pytest

from dpt.predict.depth import inverse_depth_of
from dpt.zoo import MODELS
from pipelines.prediction.outputs import encode, encode_points

RELATIVE = MODELS["dpt_tiny"].config
METRIC_INVERSE = dataclasses.replace(RELATIVE, scale=0.5, shift=0.1)
DEPTH = dataclasses.replace(METRIC_INVERSE, invert=True)


def points_of(ply: bytes) -> np.ndarray:
    body = ply.split(b"end_header\n")[1]
    records = np.frombuffer(body, [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in "rgb"])
    return np.stack([records[axis] for axis in "xyz"], axis=1)


def sixteen_bits(prediction: np.ndarray) -> np.ndarray:
    data = encode("png", prediction, RELATIVE, "inferno")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def test_the_16_bit_picture_is_linear_in_inverse_depth():
    inverse_depth = np.linspace(3, 9, 200, dtype=np.float32).reshape(10, 20)
    picture = sixteen_bits(inverse_depth)
    np.testing.assert_allclose(3 + 6 * picture.astype(np.float64) / 65535, inverse_depth, atol=1e-4)


def test_a_constant_prediction_is_written_as_zeros():
    assert (sixteen_bits(np.full((4, 4), 2.5, np.float32)) == 0).all()


def test_metric_depth_is_stored_as_kitti_stores_it():
    depth = np.array([[0.0, 1.5], [80.0, 1000.0]], np.float32)
    picture = cv2.imdecode(np.frombuffer(encode("png", depth, DEPTH, "gray"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.tolist() == [[0, 384], [80 * 256, 65535]]


@pytest.mark.parametrize("config", [RELATIVE, DEPTH])
def test_near_is_bright_whatever_is_predicted(config):
    nearness = np.linspace(0.1, 1, 16, dtype=np.float32).reshape(4, 4)
    prediction = nearness if config is RELATIVE else 1 / nearness
    data = encode("colour", prediction, config, "gray")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert (np.diff(picture.ravel().astype(int)) >= 0).all()
    assert (picture[0, 0], picture[-1, -1]) == (0, 255)


@pytest.mark.parametrize(("config", "text"), [
    (RELATIVE, "inverse depth up to an unknown scale and shift, larger is nearer, linear from 1 at 0 to 4"),
    (METRIC_INVERSE, "inverse depth in 1/metres, larger is nearer, linear from 1 at 0 to 4"),
    (DEPTH, "depth in metres, times 256"),
])  # fmt: skip
def test_files_say_what_their_values_are(config, text):
    prediction = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    with PIL.Image.open(io.BytesIO(encode("png", prediction, config, "gray"))) as picture:
        assert picture.info["Description"] == text + ("" if config is DEPTH else " at 65535")
        picture.load()  # with its checksums
    ply = encode_points(prediction, np.zeros((2, 2, 3), np.uint8), config, 90.0)
    unit = "depth of the nearest point" if config is RELATIVE else "metre"
    assert f"comment unit: {unit}\n".encode() in ply.split(b"end_header")[0]


def test_numbers_are_as_the_model_gives_them():
    prediction = np.random.default_rng(0).random((3, 5), np.float32)
    np.testing.assert_array_equal(np.load(io.BytesIO(encode("npy", prediction, DEPTH, ""))), prediction)


def test_points_are_in_metres_where_the_model_is_metric():
    image = np.zeros((2, 2, 3), np.uint8)
    depth = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32)
    assert points_of(encode_points(depth, image, DEPTH, 90.0))[:, 2].tolist() == [1, 2, 4, 8]
    assert points_of(encode_points(1 / depth, image, METRIC_INVERSE, 90.0))[:, 2].tolist() == [1, 2, 4, 8]
    # up to scale, the nearest point is at 1; nothing is behind 20 times that
    assert points_of(encode_points(7 / depth, image, RELATIVE, 90.0))[:, 2].tolist() == [1, 2, 4, 8]
    far = np.array([[1.0, 0.5], [0.01, 0.0]], np.float32)
    assert points_of(encode_points(far, image, RELATIVE, 90.0))[:, 2].tolist() == [1, 2]


def test_depth_of_zero_is_unknown_not_infinitely_near():
    inverse = inverse_depth_of(np.array([[0.0, 2.0]], np.float32), DEPTH)
    assert np.isnan(inverse[0, 0])
    assert inverse[0, 1] == 0.5
