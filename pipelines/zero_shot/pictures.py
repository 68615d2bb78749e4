"""The pictures of one image side by side, small enough for a contact sheet of the worst images."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from datasets_prep.formats.pictures import decode_rgb, encode_png
from datasets_prep.ingest.normalize import resize_nearest_valid
from dpt.predict.colours import colourise, display_range
from pipelines.zero_shot.protocol import Measured, at_size

_HEIGHT = 192
_WORST_RATIO = 2.0
"""Ratio of prediction and ground truth that has the brightest colour of the error map."""

Picture = NDArray[np.uint8]


def preview(image: Picture) -> bytes:
    """A small copy of an `image` (H, W, 3) uint8 RGB, as PNG."""
    scale = min(1.0, _HEIGHT / image.shape[0])
    size = (max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0])))
    return encode_png(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))


def depth_strip(
    small: bytes, depth: NDArray[np.float32], prediction: torch.Tensor, measured: Measured, cap: float
) -> Picture:
    """Image, ground truth, aligned prediction and error side by side; both maps have the same colour range.

    `small` is the image, from `preview`. `depth` is (H, W) in metres, NaN where invalid; beyond `cap` metres
    it is invalid too. `prediction` is (h, w) inverse depth, with its scale and shift in `measured`.

    Returns:
        (192, W', 3) uint8 RGB, or smaller.
    """
    image = decode_rgb(small)
    shape = (image.shape[0], image.shape[1])
    counted = depth < cap
    inverse = np.divide(1, depth, out=np.zeros_like(depth), where=counted)
    truth, valid = resize_nearest_valid(inverse, counted, shape)
    aligned = measured.scale * at_size(prediction, shape).double().cpu().numpy() + measured.shift
    aligned = np.maximum(aligned, 1 / cap)
    limits = display_range(truth[valid])
    shown = np.where(valid, truth, np.nan)
    error = colourise(np.abs(np.log(aligned / shown)), "magma", (0.0, math.log(_WORST_RATIO)))
    maps = [colourise(values, limits=limits) for values in (shown, aligned)]
    return np.concatenate([image, *maps, error], axis=1)


def order_strip(
    small: bytes, points: tuple[int, ...], size: tuple[int, int], prediction: torch.Tensor
) -> Picture:
    """Image (`small`, from `preview`) and prediction side by side, point A red and point B green in both.

    `points` are row and column of A, row and column of B, in the image of `size` (H, W); `prediction` is
    (h, w) inverse depth.

    Returns:
        (192, W', 3) uint8 RGB, or smaller.
    """
    image = decode_rgb(small)
    shape = (image.shape[0], image.shape[1])
    pictures = [image, colourise(at_size(prediction, shape).cpu().numpy())]
    for picture in pictures:
        for (y, x), colour in zip((points[:2], points[2:]), ((255, 0, 0), (0, 255, 0)), strict=True):
            place = (x * shape[1] // size[1], y * shape[0] // size[0])
            cv2.circle(picture, place, 4, colour, 2, cv2.LINE_AA)
    return np.concatenate(pictures, axis=1)
