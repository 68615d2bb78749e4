"""From images to inverse depth maps of the same size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dpt.config import ModelConfig
from dpt.model import DPT
from dpt.predict.transforms import network_size, resize_image


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
    model: DPT, image: np.ndarray, target: int | None = None, rule: str | None = None
) -> np.ndarray:
    """Predict the inverse depth of one image of any size.

    Args:
        model: in evaluation mode; a `dpt.FastDPT` is faster.
        image: (H, W, 3) uint8 RGB.
        target: of `dpt.predict.transforms.network_size`; the model's own (384) by default.
        rule: of `dpt.predict.transforms.network_size`; the model's own (minimal) by default.

    Returns:
        (H, W) float32, the model's output: inverse depth up to scale and shift, or metric.

    Raises:
        ValueError: if the image is not uint8 RGB, or the model does not predict depth.
    """
    return predict_batch(model, [image], target, rule)[0]


def predict_batch(
    model: DPT, images: Sequence[np.ndarray], target: int | None = None, rule: str | None = None
) -> list[np.ndarray]:
    """Predict N images (H, W, 3) uint8 RGB of one `input_size` at once: N arrays (H, W) float32.

    Each has the size of its image. The other arguments and errors are as in `predict_inverse_depth`.
    """
    prepared = [prepare(model, image, target, rule) for image in images]
    return launch(model, prepared, [image.shape[:2] for image in images]).arrays()


@dataclass(frozen=True)
class Launched:
    """Predictions that a GPU may still be computing: `maps` (H, W) on the CPU, complete once it is `done`."""

    maps: list[Tensor]
    done: torch.cuda.Event | None

    @property
    def ready(self) -> bool:
        """Whether `arrays` returns at once."""
        return self.done is None or self.done.query()

    def arrays(self) -> list[np.ndarray]:
        """Wait for the predictions, (H, W) float32 each."""
        if self.done is not None:
            self.done.synchronize()
        return [one.numpy() for one in self.maps]


@torch.inference_mode()
def launch(
    model: DPT,
    prepared: Sequence[Tensor],
    sizes: Sequence[tuple[int, ...]],
    pixels: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]] | None = None,
) -> Launched:
    """Start to predict images `prepared` for a `model`, without waiting for a GPU.

    `sizes` (H, W) are those of the images; `pixels` are rows and columns of each to keep, None for all.
    Errors as in `predict_inverse_depth` and `to_device`.
    """
    if model.config.task != "depth":
        raise ValueError(f"this is a {model.config.task} model")
    predictions = model(to_device(model, prepared))[:, None]
    resized = [at_size(one, size, model.config) for one, size in zip(predictions, sizes, strict=True)]
    if pixels is not None:
        # Indices on the host would be copied to the GPU one by one, each after all that runs there.
        indices = [
            [_on(one.device, side) for side in kept] for one, kept in zip(resized, pixels, strict=True)
        ]
        resized = [one[rows[:, None], columns] for one, (rows, columns) in zip(resized, indices, strict=True)]
    maps = [one.to("cpu", non_blocking=True) for one in resized]  # pinned, if from a GPU
    if not predictions.is_cuda:
        return Launched(maps, None)
    done = torch.cuda.Event()
    done.record()
    return Launched(maps, done)


def _on(device: torch.device, indices: NDArray[np.intp]) -> Tensor:
    """`indices` on a `device`, without waiting for a GPU."""
    return torch.from_numpy(np.ascontiguousarray(indices)).to(device, non_blocking=True)


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


def prepare(model: DPT, image: np.ndarray, target: int | None = None, rule: str | None = None) -> Tensor:
    """`image` (H, W, 3) uint8 RGB -> (3, h, w) float32 on the CPU, resized and normalised for `model`.

    `target` and `rule` are those of `input_size`. Raises ValueError if the image is not uint8 RGB.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"images must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return normalised(resize_image(image, *input_size(model, image, target, rule)), model.config)


def normalised(pixels: NDArray[np.float32], config: ModelConfig) -> Tensor:
    """`pixels` (h, w, 3) in [0, 1] -> (3, h, w) float32, by the mean and std of the `config`.

    The same to the bit as `dpt.predict.transforms.normalise`, but without PyTorch, whose arithmetic would
    start threads of its own in every thread that prepares images.
    """
    mean, std = (np.asarray(values, np.float32) for values in (config.mean, config.std))
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)


def to_device(model: DPT, prepared: Sequence[Tensor]) -> Tensor:
    """N images `prepared`, (3, h, w) float32 -> input of `model`, (N, 3, h, w) of its dtype on its device.

    Raises ValueError if they are not of one size.
    """
    sizes = {tuple(one.shape[-2:]) for one in prepared}
    if len(sizes) != 1:
        raise ValueError(f"images of a batch must have one size in the network, not {sorted(sizes)}")
    parameter = next(model.parameters())
    pinned = torch.empty(
        (len(prepared), *prepared[0].shape),
        memory_format=torch.channels_last,
        pin_memory=parameter.is_cuda,
    )
    torch.stack(list(prepared), out=pinned)
    return pinned.to(parameter.device, non_blocking=True).to(parameter.dtype)


def network_input(
    model: DPT, images: Sequence[np.ndarray], target: int | None = None, rule: str | None = None
) -> Tensor:
    """N `images` (H, W, 3) uint8 RGB -> input of `model`, (N, 3, h, w) of its dtype on its device.

    `target` and `rule` are those of `input_size`; errors are those of `prepare` and `to_device`.
    """
    return to_device(model, [prepare(model, image, target, rule) for image in images])


def to_inverse_depth(prediction: Tensor, config: ModelConfig) -> Tensor:
    """`prediction` (any shape) of a depth model with this `config` as inverse depth: itself, or 1 / depth.

    Depth is clamped to at least 1e-8 m, as `DPT` clamps inverse depth before it inverts it.
    """
    return 1 / prediction.clamp(min=1e-8) if config.predicts_depth else prediction


def at_size(prediction: Tensor, size: tuple[int, ...], config: ModelConfig) -> Tensor:
    """`prediction` (1, h, w) -> (H, W) = `size`, by the rule `output_resize` of the model's `config`."""
    if prediction.shape[1:] != size:
        mode, _, aligned = config.output_resize.partition("_")
        prediction = F.interpolate(prediction[None], size=size, mode=mode, align_corners=bool(aligned))[0]
        prediction = prediction.clamp(min=0)  # bicubic interpolation undershoots at edges
    return prediction[0]


def inverse_depth_of(prediction: NDArray[np.float32], model: ModelConfig) -> NDArray[np.float32]:
    """As `to_inverse_depth` for a `prediction` (H, W) of `model`, but NaN where depth is not positive."""
    if not model.predicts_depth:
        return prediction
    return np.divide(1, prediction, out=np.full_like(prediction, np.nan), where=prediction > 0)
