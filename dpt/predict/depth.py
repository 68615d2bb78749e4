"""From images to inverse depth maps of the same size, and to pictures."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dpt.config import ModelConfig
from dpt.model import DPT
from dpt.predict.transforms import network_size, normalise, resize_image


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
        target, rule: see `transforms.network_size`; the model's own (384, minimal) by default.
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
) -> list[np.ndarray]:
    """Predict N images at once that go through the network at one size, see `input_size`.

    Arguments as `predict_inverse_depth`; N arrays (H, W, 3) uint8 RGB -> N arrays (H, W) float32, each of the
    size of its image.
    """
    if model.config.task != "depth":
        raise ValueError(f"this is a {model.config.task} model")
    if device is not None:
        model = model.to(device)
    pixels = network_input(model, images, target, rule)
    with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
        predictions = model(pixels)[:, None]
    return [_at_size(one, image.shape[:2]) for one, image in zip(predictions, images, strict=True)]


def input_size(
    model: DPT, image: np.ndarray, target: int | None = None, rule: str | None = None
) -> tuple[int, int]:
    """(height, width) at which an image goes through `model`; see `transforms.network_size`."""
    height, width = image.shape[:2]
    target, rule = target or model.config.image_size, rule or model.config.resize_rule
    return network_size(height, width, target, rule, model.size_divisor)


def network_input(
    model: DPT, images: Sequence[np.ndarray], target: int | None = None, rule: str | None = None
) -> torch.Tensor:
    """N arrays (H, W, 3) uint8 RGB -> what the network takes, (N, 3, h, w) of its dtype on its device.

    Raises:
        ValueError: if they are not uint8 RGB, or do not all go through the network at one size.
    """
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"images must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    sizes = {input_size(model, image, target, rule) for image in images}
    if len(sizes) != 1:
        raise ValueError(f"images of a batch must go through the network at one size, not at {sorted(sizes)}")
    (size,) = sizes
    pixels = torch.from_numpy(np.stack([resize_image(image, *size) for image in images]))
    parameter = next(model.parameters())
    return normalise(pixels.to(parameter.device), model.mean, model.std).to(parameter.dtype)


def to_inverse_depth(prediction: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """What a depth model predicts, as inverse depth: itself, or 1 / depth, of any shape.

    Depth of less than 1e-8 m counts as that, the limit that models which invert their output have.
    """
    return 1 / prediction.clamp(min=1e-8) if config.predicts_depth else prediction


def _at_size(prediction: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    """(1, h, w) -> (H, W) float32 on the CPU, resampled bicubically as released."""
    if prediction.shape[1:] != size:
        prediction = F.interpolate(prediction[None], size=size, mode="bicubic", align_corners=False)[0]
        prediction = prediction.clamp(min=0)  # the cubic kernel undershoots at edges
    return prediction[0].cpu().numpy()


def inverse_depth_of(prediction: NDArray[np.float32], model: ModelConfig) -> NDArray[np.float32]:
    """What a model predicts, as inverse depth."""
    if not model.predicts_depth:
        return prediction
    return np.divide(1, prediction, out=np.full_like(prediction, np.nan), where=prediction > 0)
