"""From images to inverse depth maps of the same size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from dpt.config import ModelConfig
from dpt.model import DPT
from dpt.predict.transforms import network_size, normalise, resize_image


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Context in which `model` is in evaluation mode; afterwards it is in the mode it was in before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


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
        target: of `dpt.predict.transforms.network_size`; the model's own (384) by default.
        rule: of `dpt.predict.transforms.network_size`; the model's own (minimal) by default.
        device: where to compute; by default where the model is.
        dtype: precision of the arithmetic, e.g. bfloat16 by autocast; the result is always float32.

    Returns:
        (H, W) float32, the model's output: inverse depth up to scale and shift, or metric.

    Raises:
        ValueError: if the image is not uint8 RGB, or the model does not predict depth.
    """
    if device is not None:
        model = model.to(device)
    return predict_batch(model, [image], target, rule, dtype)[0]


@torch.inference_mode()
def predict_batch(
    model: DPT,
    images: Sequence[np.ndarray],
    target: int | None = None,
    rule: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[np.ndarray]:
    """Predict N images (H, W, 3) uint8 RGB of one `input_size` at once: N arrays (H, W) float32.

    Each has the size of its image. The other arguments and errors are as in `predict_inverse_depth`.
    """
    if model.config.task != "depth":
        raise ValueError(f"this is a {model.config.task} model")
    pixels = network_input(model, images, target, rule)
    with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
        predictions = model(pixels)[:, None]
    rule = model.config.output_resize
    return [_at_size(one, image.shape[:2], rule) for one, image in zip(predictions, images, strict=True)]


def input_size(
    model: DPT, image: np.ndarray, target: int | None = None, rule: str | None = None
) -> tuple[int, int]:
    """(height, width) of the input of `model` for `image` (H, W, 3).

    `target` and `rule` are those of `dpt.predict.transforms.network_size`; by default the model's own.
    """
    height, width = image.shape[:2]
    config = model.config
    return network_size(
        height, width, target or config.image_size, rule or config.resize_rule, model.size_divisor
    )


def network_input(
    model: DPT, images: Sequence[np.ndarray], target: int | None = None, rule: str | None = None
) -> torch.Tensor:
    """N `images` (H, W, 3) uint8 RGB -> input of `model`, (N, 3, h, w) of its dtype on its device.

    `target` and `rule` are those of `input_size`. Raises ValueError if the images are not uint8 RGB, or not
    of one `input_size`.
    """
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"images must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    sizes = {input_size(model, image, target, rule) for image in images}
    if len(sizes) != 1:
        raise ValueError(f"images of a batch must have one size in the network, not {sorted(sizes)}")
    (size,) = sizes
    pixels = torch.from_numpy(np.stack([resize_image(image, *size) for image in images]))
    parameter = next(model.parameters())
    return normalise(pixels.to(parameter.device), model.mean, model.std).to(parameter.dtype)


def to_inverse_depth(prediction: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """`prediction` (any shape) of a depth model with this `config` as inverse depth: itself, or 1 / depth.

    Depth is clamped to at least 1e-8 m, as `DPT` clamps inverse depth before it inverts it.
    """
    return 1 / prediction.clamp(min=1e-8) if config.predicts_depth else prediction


def _at_size(prediction: torch.Tensor, size: tuple[int, ...], rule: str) -> np.ndarray:
    """(1, h, w) -> (H, W) float32 on the CPU, by the `rule` of `ModelConfig.output_resize`."""
    if prediction.shape[1:] != size:
        mode, _, aligned = rule.partition("_")
        prediction = F.interpolate(prediction[None], size=size, mode=mode, align_corners=bool(aligned))[0]
        prediction = prediction.clamp(min=0)  # bicubic interpolation undershoots at edges
    return prediction[0].cpu().numpy()


def inverse_depth_of(prediction: NDArray[np.float32], model: ModelConfig) -> NDArray[np.float32]:
    """As `to_inverse_depth` for a `prediction` (H, W) of `model`, but NaN where depth is not positive."""
    if not model.predicts_depth:
        return prediction
    return np.divide(1, prediction, out=np.full_like(prediction, np.nan), where=prediction > 0)
