"""From images to label maps: one pass over the whole image, or sliding windows at several scales.

The paper (section 4.2) evaluates as Zhang et al. do (ResNeSt, 2020): at every scale the image is resized so
that its longer side is the scale times 520 pixels and cut into overlapping windows of the training crop's
size (480), each predicted as it is and mirrored; overlaps are averaged, and the scales are averaged at the
image's own size. The averages are of class probabilities, so every window and scale has the same weight.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpt.model import DPT
from dpt.predict.colours import UNLABELLED
from dpt.predict.depth import network_input
from dpt.predict.transforms import normalise

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of Zhang et al."""

BASE_TO_CROP = 520 / 480
"""Longer side of the image at scale 1, relative to the side of the training crop."""

_STRIDE = 2 / 3  # distance of neighbouring windows, relative to the side of a window
_MOST_CLASSES = 255
_WINDOWS_AT_ONCE = 4
_PIXELS_AT_ONCE = 1 << 18
"""Pixels of a label map computed at once: probabilities of all classes of a large image exceed memory."""


@torch.inference_mode()
def predict_classes(
    model: DPT,
    images: Sequence[NDArray[np.uint8]],
    scales: Sequence[float] = (),
    flip: bool = False,
    target: int | None = None,
    rule: str | None = None,
) -> list[NDArray[np.uint8]]:
    """Predict the class of every pixel of N images.

    Args:
        model: a segmentation model in evaluation mode; a `dpt.FastDPT` is faster.
        images: (H, W, 3) uint8 RGB; without `scales` all must have one `dpt.predict.depth.input_size`.
        scales: of sliding windows, e.g. `PAPER_SCALES`; if empty, each image goes through the network once,
            as a whole.
        flip: predict the mirrored image too, and average.
        target: of `dpt.predict.transforms.network_size` for whole images; the model's own by default. Windows
            have the model's size.
        rule: of `dpt.predict.transforms.network_size` for whole images; the model's own by default.

    Returns:
        N arrays (H, W) uint8, each of the size of its image; 255 where the model gives no finite number.

    Raises:
        ValueError: if the model does not predict classes, or more than 255 of them; if the images are not
            uint8 RGB, or not of one `dpt.predict.depth.input_size`.
    """
    if model.config.task != "segmentation":
        raise ValueError(f"this is a {model.config.task} model")
    if model.config.classes > _MOST_CLASSES:
        raise ValueError(f"label maps hold at most {_MOST_CLASSES} classes, not {model.config.classes}")
    if not scales:
        pixels = network_input(model, images, target, rule)
        batch = _probabilities(model, pixels, flip)
        return [_decide([one], image.shape[:2]) for one, image in zip(batch, images, strict=True)]
    found = ([_at_scale(model, image, scale, flip) for scale in scales] for image in images)
    return [_decide(scores, image.shape[:2]) for scores, image in zip(found, images, strict=True)]


def window_starts(length: int, window: int) -> list[int]:
    """First pixels of windows of `window` pixels along a side of `length` pixels; the last may exceed it.

    480 pixels along 960 → 0, 320, 640: the last reaches 1120, and the image is padded up to there.
    """
    stride = int(window * _STRIDE)
    return [stride * number for number in range(math.ceil(max(0, length - window) / stride) + 1)]


def scaled_size(height: int, width: int, crop: int, scale: float) -> tuple[int, int]:
    """Size of a `height` × `width` image at `scale`: its longer side becomes `scale` · 520/480 · `crop`."""
    longer = math.ceil(round(BASE_TO_CROP * crop) * scale)
    factor = longer / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def _at_scale(model: DPT, image: NDArray[np.uint8], scale: float, flip: bool) -> Tensor:
    """Class probabilities (K, h, w) of an image at one scale, from windows."""
    window = model.config.side
    height, width = scaled_size(image.shape[0], image.shape[1], window, scale)
    parameter = next(model.parameters())
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(parameter.device)
    pixels = pixels.permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=True)
    rows, columns = window_starts(height, window), window_starts(width, window)
    # Windows that exceed the image see black there, as in training.
    beyond = (0, columns[-1] + window - width, 0, rows[-1] + window - height)
    pixels = normalise(F.pad(pixels, beyond), model.mean, model.std).to(parameter.dtype)
    places = [(row, column) for row in rows for column in columns]
    total = torch.zeros((model.config.classes, *pixels.shape[2:]), device=pixels.device)
    covered = torch.zeros(pixels.shape[2:], device=pixels.device)
    for first in range(0, len(places), _WINDOWS_AT_ONCE):
        some = places[first : first + _WINDOWS_AT_ONCE]
        windows = torch.cat([pixels[:, :, r : r + window, c : c + window] for r, c in some])
        for (r, c), found in zip(some, _probabilities(model, windows, flip), strict=True):
            total[:, r : r + window, c : c + window] += found
            covered[r : r + window, c : c + window] += 1
    return (total / covered)[:, :height, :width]


def _probabilities(model: DPT, pixels: Tensor, flip: bool) -> Tensor:
    """(B, 3, h, w) normalised images -> (B, K, h, w) float32 probabilities of the classes."""
    found: Tensor = model(pixels).softmax(dim=1)
    return (found + model(pixels.flip(-1)).softmax(dim=1).flip(-1)) / 2 if flip else found


def _decide(scores: Sequence[Tensor], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The class of the highest sum of scores, each (K, h, w) and resized to (H, W) = `size`, band by band."""
    height, width = size
    band = max(1, _PIXELS_AT_ONCE // width)
    parts = []
    for first in range(0, height, band):
        rows = torch.arange(first, min(first + band, height), device=scores[0].device)
        total = torch.stack([_resized_rows(one, rows, height, width) for one in scores]).sum(dim=0)
        known = total.isfinite().all(dim=0)
        parts.append(torch.where(known, total.argmax(dim=0), UNLABELLED).to(torch.uint8).cpu())
    return torch.cat(parts).numpy()


def _resized_rows(scores: Tensor, rows: Tensor, height: int, width: int) -> Tensor:
    """The rows `rows` of (K, h, w) resized to (K, height, width), bilinearly with aligned corners.

    Aligned corners map output row y to input row y (h − 1) / (height − 1): from 3 to 5 rows, row 3 is at 1.5,
    half of row 1 and half of row 2.
    """
    positions = rows * ((scores.shape[1] - 1) / max(1, height - 1))
    above = positions.floor().long().clamp(max=scores.shape[1] - 1)
    below = (above + 1).clamp(max=scores.shape[1] - 1)
    share = (positions - above).to(scores.dtype)[:, None]
    band = torch.lerp(scores[:, above], scores[:, below], share)
    return F.interpolate(band[None], size=(len(rows), width), mode="bilinear", align_corners=True)[0]
