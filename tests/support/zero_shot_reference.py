"""The zero-shot protocol in plain NumPy, float64, written from the papers, to hold ours against.

Nothing of it is shared with the implementation but the network and the bytes of the raw files.
"""

import cv2
import numpy as np


def metrics_of(p, t):
    """The metrics of one image as the literature defines them, from predicted and true depth in float64."""
    ratio, log = np.maximum(p / t, t / p), np.log(p) - np.log(t)
    found = {"rmse": np.sqrt(np.mean((p - t) ** 2)), "rmse_log": np.sqrt(np.mean(log**2))}
    found |= {"abs_rel": np.mean(np.abs(p - t) / t), "sq_rel": np.mean((p - t) ** 2 / t)}
    found["log10"] = np.mean(np.abs(np.log10(p) - np.log10(t)))
    found["silog"] = 100 * np.sqrt(np.mean(log**2) - np.mean(log) ** 2)
    return found | {f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)}


def input_size(height, width, rule, side, divisor=32):
    """Longer (or shorter) side to `side`; the other to the nearest multiple of `divisor`."""
    scale = side / (max if rule == "longer" else min)(height, width)
    return tuple(max(1, round(scale * length / divisor)) * divisor for length in (height, width))


def network_pixels(image, size, mean, std):
    """(H, W, 3) uint8 → (h, w, 3) float32, resampled bicubically in floating point."""
    unit = image.astype(np.float32) / np.float32(255)
    small = cv2.resize(unit, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return (small - np.float32(mean)) / np.float32(std)


def bilinear(values, size):
    """(h, w) → (H, W) float64, pixel centres at halves, edges repeated."""
    result = np.asarray(values, np.float64)
    for axis, length in enumerate(size):
        old = result.shape[axis]
        places = np.maximum((np.arange(length) + 0.5) * old / length - 0.5, 0)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, old - 1)
        weight = (places - low).reshape([-1 if i == axis else 1 for i in range(2)])
        result = (1 - weight) * result.take(low, axis) + weight * result.take(high, axis)
    return result


def depth_errors(prediction, depth, valid, cap):
    """AbsRel, δ > 1.25, scale, shift and pixels of one image; None where nothing can be counted."""
    truth = depth.astype(np.float64)
    counted = valid & (truth < cap)
    if not counted.any():
        return None
    d = bilinear(prediction, depth.shape)[counted]
    z = truth[counted]
    system = np.stack([d, np.ones_like(d)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(system, 1 / z, rcond=None)
    aligned = 1 / np.maximum(scale * d + shift, 1 / cap)
    found = {name: metrics_of(aligned, z)[name] for name in ("abs_rel", "rmse")}
    found["delta1_error"] = np.mean(np.maximum(aligned / z, z / aligned) > 1.25)
    return found | {"scale": scale, "shift": shift, "pixels": counted.sum()}


def disagrees(prediction, size, a, b, a_is_farther):
    """WHDR of one pair: 1 unless the farther point has the smaller predicted inverse depth."""
    whole = bilinear(prediction, size)
    farther, nearer = (a, b) if a_is_farther else (b, a)
    return float(not whole[farther] < whole[nearer])
