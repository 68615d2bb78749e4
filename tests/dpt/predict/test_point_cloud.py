import math

import numpy as np
import pytest

from dpt.predict.point_cloud import encode_ply, relative_depth, unproject


def test_a_wall_has_the_width_that_the_field_of_view_covers():
    points = unproject(np.full((4, 8), 3.0), field_of_view=90)
    # at 90 degrees the image covers twice the distance; its pixel centres end half a pixel earlier
    assert points.shape == (4, 8, 3)
    assert points[0, -1, 0] - points[0, 0, 0] == pytest.approx(2 * 3 * 7 / 8)
    assert points[0, 0, 0] == -points[0, -1, 0]
    assert points[0, 0, 1] < 0 < points[-1, 0, 1]
    assert (points[..., 2] == 3).all()
    # pixels are square
    assert points[1, 0, 1] - points[0, 0, 1] == pytest.approx(points[0, 1, 0] - points[0, 0, 0])
    assert math.hypot(*points[0, 0, :2]) > 3 * 7 / 8


@pytest.mark.parametrize("angle", [0, -10, 180])
def test_impossible_angles_are_refused(angle):
    with pytest.raises(ValueError, match="field of view"):
        unproject(np.ones((2, 2)), angle)


def test_files_hold_the_finite_points():
    points = np.array([[[1, 2, 3], [np.inf, 0, 0]], [[4, 5, 6], [np.nan, 1, 1]]], np.float32)
    colours = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    header, body = encode_ply(points, colours, "metre").split(b"end_header\n")
    properties = ("float x", "float y", "float z", "uchar red", "uchar green", "uchar blue")
    assert header.decode().splitlines() == [
        *("ply", "format binary_little_endian 1.0", "comment unit: metre", "element vertex 2"),
        *(f"property {name}" for name in properties),
    ]
    assert len(body) == 2 * 15
    assert np.frombuffer(body[:12], "<f4").tolist() == [1, 2, 3]
    assert list(body[12:15]) == [0, 1, 2]
    assert np.frombuffer(body[15:27], "<f4").tolist() == [4, 5, 6]
    assert list(body[27:]) == [6, 7, 8]


def test_relative_depth_starts_at_one_and_leaves_out_what_is_far():
    inverse_depth = np.array([[8.0, 4.0, 0.5], [0.3, 0.0, np.nan]], np.float32)
    depth = relative_depth(inverse_depth)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.array([[1, 2, 16], [np.nan, np.nan, np.nan]], np.float32))
    assert np.isnan(relative_depth(np.zeros((2, 2), np.float32))).all()
