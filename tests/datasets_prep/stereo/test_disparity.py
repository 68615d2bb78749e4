"""Disparity, its check, the rules and the sky, on flow that is known."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.settings import RejectionRules
from datasets_prep.stereo.disparity import Disparity, disparity_of, put_sky_far, reject, shrink
from datasets_prep.stereo.flow import Flow

HEIGHT, WIDTH = 40, 80
RULES = RejectionRules()


def flows(near: float = 20.0, far: float = 4.0, vertical: float = 0.0) -> tuple[Flow, Flow]:
    """A near square before a far wall: flow left to right and right to left, exact."""
    there, back = np.zeros((2, HEIGHT, WIDTH, 2), np.float32)
    there[..., 0], back[..., 0] = -far, far
    there[10:30, 40:70, 0] = -near
    back[10:30, 40 - int(near) : 70 - int(near), 0] = near
    there[..., 1] = vertical
    return there, back


def test_disparity_is_what_flow_goes_to_the_left():
    disparity = disparity_of(*flows())
    assert disparity.values.dtype == np.float32
    assert (disparity.values[12:28, 42:68] == 20).all()
    assert (disparity.values[:8] == 4).all()


def test_disparity_may_be_negative():
    there, back = flows()
    there[..., 0] += 30
    back[..., 0] -= 30
    assert disparity_of(there, back).values.max() < 0


def test_agreeing_pixels_are_certain_and_hidden_ones_are_not():
    uncertainty = disparity_of(*flows()).uncertainty
    assert (uncertainty[12:28, 42:68] == 0).all()
    assert (uncertainty[:8, 6:] == 0).all()
    # The wall left of the square is hidden in the right view, where the square is.
    assert (uncertainty[12:28, 26:38] == 16).all()


def test_pixels_that_leave_the_other_view_are_uncertain():
    uncertainty = disparity_of(*flows()).uncertainty
    assert np.isinf(uncertainty[:8, :4]).all()
    assert np.isfinite(uncertainty[:8, 4:]).all()


def test_flow_between_pixels_is_interpolated():
    there, back = flows(far=3.5)
    back[..., 0] = np.arange(WIDTH)
    assert disparity_of(there, back).uncertainty[0, 10] == pytest.approx(6.5 - 3.5)


def rejection(there: Flow, back: Flow, rules: RejectionRules = RULES) -> str | None:
    try:
        reject(there, back, disparity_of(there, back), rules)
    except BadSample as error:
        return str(error)
    return None


def test_a_good_pair_passes():
    assert rejection(*flows()) is None


def test_vertical_motion_is_rejected_from_a_tenth_of_the_pixels_on():
    there, back = flows()
    there[:3, :, 1] = 2.5  # 7.5 %
    there[20:, :, 1] = 2.0  # not more than 2 px
    assert rejection(there, back) is None
    there[:4, :, 1] = -2.5  # 10 %
    reason = rejection(there, back)
    assert reason == (
        "not rectified: vertical flow left to right is over 2 px on 10% of the pixels, less than 10% needed"
    )
    assert str(rejection(*flows()[:1], there)).startswith("not rectified: vertical flow right to left")


def test_a_small_range_is_rejected():
    assert rejection(*flows(near=14.5)) is None
    assert rejection(*flows(near=14.0)) == (
        "no depth: horizontal flow left to right has a range of 10.0 px, more than 10 px needed"
    )


def test_flow_that_disagrees_with_itself_is_rejected():
    there, back = flows()
    back[: HEIGHT // 3, :, 0] += 2.5
    assert str(rejection(there, back)).startswith("inconsistent: forward and backward flow agree within 2 px")
    assert rejection(there, back, RejectionRules(consistent_share=0.5)) is None
    assert rejection(there, back, RejectionRules(uncertainty=3.0)) is None


def test_shrinking_averages_and_counts_in_larger_pixels():
    values = np.arange(4 * 6, dtype=np.float32).reshape(4, 6)
    small = shrink(Disparity(values, 2 * values), 2)
    np.testing.assert_allclose(small.values, [[1.75, 2.75, 3.75], [7.75, 8.75, 9.75]])
    np.testing.assert_allclose(small.uncertainty, 2 * small.values)
    assert small.values.dtype == np.float32


def test_shrinking_keeps_the_unknown_unknown_and_leaves_out_a_rest():
    uncertainty = np.zeros((5, 5), np.float32)
    uncertainty[0, 0] = np.inf
    small = shrink(Disparity(np.ones((5, 5), np.float32), uncertainty), 2)
    assert small.values.shape == (2, 2)
    assert np.isinf(small.uncertainty[0, 0])
    assert np.isfinite(small.uncertainty).sum() == 3


def test_sky_gets_the_smallest_certain_disparity():
    values = np.array([[5, 6, 7, 8], [-9, 1, 2, 3]], np.float32)
    uncertainty = np.array([[9, 9, 9, 9], [5, 0, 0, 0]], np.float32)
    sky = np.array([[True, True, False, False]])  # of half the height: the nearest pixel counts
    found = put_sky_far(Disparity(values, uncertainty), sky, 2.0)
    # -9 is smaller, but not certain and under the sky.
    assert found.values.tolist() == [[2, 2, 7, 8], [2, 2, 2, 3]]
    assert found.uncertainty.tolist() == [[0, 0, 9, 9], [0, 0, 0, 0]]


def test_a_picture_of_nothing_but_sky_stays():
    disparity = Disparity(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
    assert put_sky_far(disparity, np.ones((2, 2), bool), 2.0) is disparity


def test_sky_of_another_size_is_taken_under_the_centre_of_each_pixel():
    # From 5 to 2 columns: the centres lie at 1.25 and 3.75, in the columns 1 and 3.
    sky = np.array([[False, True, False, False, False]])
    values = np.array([[7.0, 3.0]], np.float32)
    found = put_sky_far(Disparity(values, np.zeros((1, 2), np.float32)), sky, 2.0)
    assert found.values.tolist() == [[3.0, 3.0]]
