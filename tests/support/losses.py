"""The loss of relative depth in float64, written from the papers' formulas, pixel by pixel."""

import numpy as np


def normalised(values):
    """TPAMI paper: subtract the median, divide by the mean absolute deviation."""
    ordered = np.sort(values)
    median = ordered[(len(ordered) - 1) // 2]
    return (values - median) / np.abs(values - median).mean()


def reference_gradient(residual, valid, scales=4):
    total = 0.0
    for k in range(scales):
        r, v = residual[:: 2**k, :: 2**k], valid[:: 2**k, :: 2**k]
        rows, columns = r.shape
        scale_sum = 0.0
        for y in range(rows):
            for x in range(columns):
                if x + 1 < columns and v[y, x] and v[y, x + 1]:
                    scale_sum += abs(r[y, x + 1] - r[y, x])
                if y + 1 < rows and v[y, x] and v[y + 1, x]:
                    scale_sum += abs(r[y + 1, x] - r[y, x])
        total += scale_sum / max(v.sum(), 1)
    return total


def reference_trimmed(prediction, target, valid, trim=0.2, alpha=0.5):
    p, t = normalised(prediction[valid]), normalised(target[valid])
    sizes = np.sort(np.abs(p - t))
    kept = sizes[: int(np.floor(len(sizes) * (1 - trim)))]
    residual = np.zeros_like(prediction)
    residual[valid] = p - t
    return kept.sum() / (2 * valid.sum()) + alpha * reference_gradient(residual, valid)
