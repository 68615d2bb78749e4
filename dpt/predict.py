"""From images to inverse depth maps of the same size, and to pictures."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F

from dpt.model import DPT
from dpt.transforms import network_size, normalise, resize_image


def predict_inverse_depth(
    model: DPT,
    image: np.ndarray,
    target: int | None = None,
    rule: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Predict the inverse depth of one image of any size.

    Args:
        model: in evaluation mode; moved to `device` if that is given.
        image: (H, W, 3) uint8 RGB.
        target, rule: see `dpt.transforms.network_size`; the model's own (384, minimal) by default.
        device: where to compute; where the model is by default.
        dtype: precision of the arithmetic, e.g. bfloat16 by autocast; the result is float32 in any case.

    Returns:
        (H, W) float32, as the model gives it: inverse depth up to scale and shift, or metric.

    Raises:
        ValueError: if the image is not uint8 RGB, or the model does not predict depth.
    """
    return predict_batch(model, [image], target, rule, device, dtype)[0]


@torch.inference_mode()
def predict_batch(
    model: DPT,
    images: Sequence[np.ndarray],
    target: int | None = None,
    rule: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Predict N images of one size at once: N arrays (H, W, 3) uint8 RGB -> (N, H, W) float32.

    Arguments as `predict_inverse_depth`.
    """
    if model.config.task != "depth":
        raise ValueError(f"this is a {model.config.task} model")
    for image in images:
        if (
            image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
            or image.shape != images[0].shape
        ):
            raise ValueError(f"images must be (H, W, 3) uint8 of one size, not {image.shape} {image.dtype}")
    height, width = images[0].shape[:2]
    size = network_size(
        height, width, target or model.config.image_size, rule or model.config.resize_rule, model.size_divisor
    )
    device = torch.device(device) if device is not None else next(model.parameters()).device
    pixels = torch.from_numpy(np.stack([resize_image(image, *size) for image in images])).to(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        prediction = model.to(device)(normalise(pixels, model.mean, model.std))[:, None]
    if size != (height, width):
        prediction = F.interpolate(prediction, size=(height, width), mode="bicubic", align_corners=False)
        prediction = prediction.clamp(min=0)  # the cubic kernel undershoots at edges
    return prediction[:, 0].cpu().numpy()


def colourise(inverse_depth: np.ndarray, colour_map: str = "inferno") -> np.ndarray:
    """Paint (H, W) inverse depth as (H, W, 3) uint8 RGB, bright is near.

    The range is that of the 2nd to the 98th percentile of the finite pixels; others are black.
    """
    finite = np.isfinite(inverse_depth)
    if not finite.any():
        return np.zeros((*inverse_depth.shape, 3), np.uint8)
    low, high = np.percentile(inverse_depth[finite], (2, 98))
    values = (np.where(finite, inverse_depth, low) - low) / max(high - low, np.finfo(np.float32).tiny)
    colours = matplotlib.colormaps[colour_map](np.clip(values, 0, 1), bytes=True)[..., :3]
    return colours * finite[..., None]
