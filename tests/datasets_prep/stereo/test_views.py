"""Packings are taken apart to the views that were put in; films in 1080p are cut as their authors did."""

import cv2
import numpy as np
import pytest

from datasets_prep.stereo.views import crop_widescreen, split_views


@pytest.fixture
def views() -> tuple[np.ndarray, np.ndarray]:
    """Smooth pictures, which survive squeezing and stretching."""
    rows, columns = np.mgrid[0:40, 0:60]
    left = np.stack([rows * 5, columns * 4, rows + columns], axis=2).astype(np.uint8)
    return left, (255 - left).astype(np.uint8)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("packing", "axis"), [("side_by_side", 1), ("over_under", 0)])
def test_full_views_come_back_exactly(packing, axis, swapped, views):
    order = views[::-1] if swapped else views
    left, right = split_views(np.concatenate(order, axis=axis), packing, swapped)
    np.testing.assert_array_equal(left, views[0])
    np.testing.assert_array_equal(right, views[1])


@pytest.mark.parametrize(
    ("packing", "axis", "size"), [("half_side_by_side", 1, (30, 40)), ("half_over_under", 0, (60, 20))]
)
def test_half_views_are_stretched_back(packing, axis, size, views):
    squeezed = [cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in views]
    found = split_views(np.concatenate(squeezed, axis=axis), packing)
    for view, expected in zip(found, views, strict=True):
        assert view.shape == expected.shape
        # The outermost pixels have no neighbour to be drawn between.
        difference = np.abs(view.astype(int) - expected)[2:-2, 2:-2]
        assert difference.max() <= 2


def test_an_odd_column_is_left_out(views):
    frame = np.concatenate([*views, views[0][:, :1]], axis=1)
    left, right = split_views(frame, "side_by_side")
    np.testing.assert_array_equal(left, views[0])
    np.testing.assert_array_equal(right, views[1])


def test_a_view_does_not_keep_the_frame_alive(views):
    left, _ = split_views(np.concatenate(views, axis=1), "side_by_side")
    assert left.base is None


def test_1080p_is_cut_to_the_authors_size_around_its_middle():
    view = np.zeros((1080, 1920, 3), np.uint8)
    view[140:940, 20:1900] = 1
    cropped = crop_widescreen(view)
    assert cropped.shape == (800, 1880, 3)
    assert cropped.all()


def test_other_sizes_stay(views):
    assert crop_widescreen(views[0]) is views[0]
