"""Predictions without shape, as the released evaluation values them."""

import numpy as np
import pytest
import torch

from pipelines.zero_shot.protocol import measure_depth


def released(prediction: np.ndarray, depth: np.ndarray, cap: float) -> float:
    """AbsRel as in the authors' evaluation: what their `compute_scale_and_shift` cannot solve stays zero."""
    mask = np.isfinite(depth) & (depth < cap)
    p, t = prediction[mask].astype(np.float64), 1 / depth[mask].astype(np.float64)
    a_00, a_01, a_11, b_0, b_1 = (p * p).sum(), p.sum(), float(mask.sum()), (p * t).sum(), t.sum()
    scale = shift = 0.0
    if (det := a_00 * a_11 - a_01 * a_01) > 0:
        scale, shift = (a_11 * b_0 - a_01 * b_1) / det, (a_00 * b_1 - a_01 * b_0) / det
    predicted = 1 / np.maximum(scale * p + shift, 1 / cap)
    return float(np.mean(np.abs(predicted - depth[mask]) / depth[mask]))


@pytest.mark.parametrize("value", [0.0, 0.5, 1024.0])
@pytest.mark.parametrize("size", [(6, 8), (12, 16), (5, 3)])
def test_a_constant_prediction_is_at_the_cap(value, size):
    depth = np.random.default_rng(0).uniform(1, 9, (12, 16)).astype(np.float32)
    depth[0] = np.nan
    measured = measure_depth(torch.full(size, value), depth, 10.0)
    assert (measured.scale, measured.shift) == (0.0, 0.0)
    at_the_cap = np.nanmean(np.abs(10.0 - depth.astype(np.float64)) / depth)
    assert measured.metrics["abs_rel"] == pytest.approx(at_the_cap, rel=1e-9)
    assert released(np.full((12, 16), value), depth, 10.0) == pytest.approx(at_the_cap, rel=1e-9)


def test_one_pixel_determines_nothing():
    depth = np.full((4, 4), np.nan, np.float32)
    depth[1, 2] = 2.0
    prediction = np.arange(16, dtype=np.float32).reshape(4, 4)
    measured = measure_depth(torch.from_numpy(prediction), depth, 10.0)
    assert measured.metrics["abs_rel"] == released(prediction, depth, 10.0) == 4.0
