import numpy as np
import pytest

from pipelines.labelling.agreement import agreeing

RAMP = np.tile(np.linspace(1, 3, 40, dtype=np.float32), (30, 1))


def test_another_scale_and_shift_agree_everywhere():
    assert agreeing(RAMP, [5 * RAMP - 2, 0.1 * RAMP], metric=False, tolerance=1e-5).all()


def test_a_metric_model_has_to_agree_in_its_unit():
    assert not agreeing(RAMP, [2 * RAMP], metric=True, tolerance=0.3).any()
    # the range counts from 0, at infinity, to 3: a tenth of it are 0.3
    assert agreeing(RAMP, [RAMP + 0.29], metric=True, tolerance=0.1).all()
    assert not agreeing(RAMP, [RAMP + 0.31], metric=True, tolerance=0.1).any()


def test_pixels_at_which_one_view_differs_do_not_agree():
    one, other = RAMP.copy(), RAMP.copy()
    one[:3, :4] += 1
    other[20:22, 10:11] -= 1
    agrees = agreeing(RAMP, [one, 2 * other + 7], metric=False, tolerance=0.2)
    expected = np.ones(RAMP.shape, bool)
    expected[:3, :4] = expected[20:22, 10:11] = False
    assert (agrees == expected).all()


@pytest.mark.parametrize(("tolerance", "share"), [(0.16, 0.5), (0.17, 1.0)])
def test_tolerance_is_a_share_of_the_range(tolerance, share):
    other = RAMP.copy()
    other[:15] += 0.5  # a sixth of what there is from 0 to 3
    assert agreeing(RAMP, [other, RAMP], metric=True, tolerance=tolerance).mean() == share


def test_an_inverted_view_does_not_agree():
    """The best scale would be negative: what is near in one view is far in the other."""
    agrees = agreeing(RAMP, [RAMP[:, ::-1].copy()], metric=False, tolerance=0.1)
    # Its best constant is the mean, 2: it agrees where the ramp is within a tenth of 2 of that.
    assert (agrees == (np.abs(RAMP - 2) <= 0.2)).all()
