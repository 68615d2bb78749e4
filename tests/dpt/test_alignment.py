import numpy as np
import pytest
import torch

from dpt.alignment import least_squares_scale_shift, median_and_deviation, robust_scale_shift


def maps(seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.rand(4, 9, 11, generator=generator)
    target = 3 * prediction + 2 + torch.randn(4, 9, 11, generator=generator)
    valid = torch.rand(4, 9, 11, generator=generator) < 0.6
    return prediction, target, valid


def test_least_squares_is_the_least_squares_solution():
    prediction, target, valid = maps()
    scale, shift = least_squares_scale_shift(prediction, target, valid)
    assert scale.dtype == shift.dtype == torch.float64
    for i, mask in enumerate(valid.numpy()):
        p, t = prediction[i].numpy()[mask].astype(np.float64), target[i].numpy()[mask].astype(np.float64)
        solution = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), t, rcond=None)[0]
        np.testing.assert_allclose([scale[i], shift[i]], solution, rtol=1e-12)


def test_least_squares_survives_a_large_offset():
    prediction, target, valid = maps()
    offset = prediction.double() * 1e-3 + 1e5
    scale, shift = least_squares_scale_shift(offset, target, valid)
    expected_scale, expected_shift = least_squares_scale_shift(prediction, target, valid)
    torch.testing.assert_close(scale, expected_scale * 1e3, rtol=1e-5, atol=0)
    aligned = scale[:, None, None] * offset + shift[:, None, None]
    expected = expected_scale[:, None, None] * prediction + expected_shift[:, None, None]
    torch.testing.assert_close(aligned, expected, rtol=1e-5, atol=1e-5)


def test_robust_alignment_matches_median_and_deviation():
    prediction, target, valid = maps()
    scale, shift = robust_scale_shift(prediction, target, valid)
    aligned = scale[:, None, None] * prediction + shift[:, None, None]
    for got, wanted in zip(
        median_and_deviation(aligned, valid), median_and_deviation(target.double(), valid), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    for i, mask in enumerate(valid.numpy()):
        values = np.sort(target[i].numpy()[mask].astype(np.float64))
        median = values[(len(values) - 1) // 2]
        expected = [median, np.abs(values - median).mean()]
        got = [value[i] for value in median_and_deviation(target.double(), valid)]
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(("align", "shifts"), [
    (least_squares_scale_shift, [0, 0, 0]),  # a singular system is left unsolved, as released
    (robust_scale_shift, [5, 0, None]),
])  # fmt: skip
def test_degenerate_images_are_well_defined(align, shifts):
    prediction, target, valid = maps()
    prediction[0] = 0.1
    target[0] = 5.0
    valid[1] = False
    valid[2] = False
    valid[2, 4, 5] = True
    prediction[3][~valid[3]] = torch.nan
    target[3][~valid[3]] = torch.inf
    scale, shift = align(prediction.requires_grad_(), target, valid)
    assert scale[:3].tolist() == [0, 0, 0]
    expected = [target[2, 4, 5] if one is None else one for one in shifts]
    np.testing.assert_allclose(shift[:3].detach(), expected, rtol=1e-12)
    assert scale[3].isfinite()
    assert shift[3].isfinite()
    (scale.sum() + shift.sum()).backward()
    assert prediction.grad.isfinite().all()
