"""A shard's row as pictures for people: the image, its ground truth, and where there is any."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.ingest.normalize import resize_nearest_valid
from datasets_prep.schema import decode_depth, decode_image, decode_inverse_depth, decode_label
from datasets_prep.sources.base import IGNORED_LABEL
from dpt.predict.colours import colourise

Picture = NDArray[np.uint8]

HEIGHT = 384
"""Larger rows, of evaluation sets at their native size, are drawn this high."""

_SKY, _VALID = 128, 255
_POINT_COLOURS = {True: (255, 60, 60), False: (60, 160, 255)}
_LABEL_HUES = 37
"""Hues of neighbouring class ids are so many degrees (of 180) apart."""


def pictures_of_row(row: dict[str, Any]) -> list[Picture]:
    """Image, ground truth and validity, each (H, W, 3) uint8 RGB of one size.

    Ground truth: inverse depth (bright is near), or classes in colours of no meaning, or the image with its
    two points, the farther one red. Validity: white where there is ground truth, grey where it says sky.
    """
    image = decode_image(row["image"])
    shape = _shape(*image.shape[:2])
    shrunk = np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    if row["inverse_depth"] is not None:
        stored = decode_inverse_depth(row["inverse_depth"], row["height"], row["width"]).astype(np.float32)
        return [shrunk, *_of_inverse_depth(stored, shape)]
    if row["depth"] is not None:
        with np.errstate(divide="ignore"):
            inverse = 1 / decode_depth(row["depth"], row["height"], row["width"])
        return [shrunk, *_of_inverse_depth(inverse.astype(np.float32), shape)]
    if row["label"] is not None:
        return [shrunk, *_of_labels(decode_label(row["label"]), shape)]
    return [shrunk, *_of_points(image, row["point_pair"], shape)]


def _shape(height: int, width: int) -> tuple[int, int]:
    factor = min(1.0, HEIGHT / height)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _of_inverse_depth(values: NDArray[np.float32], shape: tuple[int, int]) -> list[Picture]:
    values, valid = resize_nearest_valid(values, np.isfinite(values), shape)
    values = np.where(valid, values, np.nan)
    validity = np.where(valid, np.where(values == 0, _SKY, _VALID), 0)
    return [np.asarray(colourise(values), np.uint8), _grey(validity)]


def _of_labels(labels: NDArray[np.uint8], shape: tuple[int, int]) -> list[Picture]:
    labels = np.asarray(cv2.resize(labels, shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    valid = labels != IGNORED_LABEL
    hues = (labels.astype(np.uint16) * _LABEL_HUES % 180).astype(np.uint8)
    brightness = np.where(valid, 140 + labels % 4 * 30, 0).astype(np.uint8)
    colours = cv2.cvtColor(np.dstack([hues, np.full_like(hues, 190), brightness]), cv2.COLOR_HSV2RGB)
    return [np.asarray(colours, np.uint8), _grey(np.where(valid, _VALID, 0))]


def _of_points(image: Picture, pair: dict[str, Any], shape: tuple[int, int]) -> list[Picture]:
    shown = np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8) // 2
    validity = np.zeros(shape, np.uint8)
    radius = max(3, shape[0] // 40)
    for point in "ab":
        y = round(pair[f"y_{point}"] * shape[0] / image.shape[0])
        x = round(pair[f"x_{point}"] * shape[1] / image.shape[1])
        colour = _POINT_COLOURS[pair["a_is_farther"] == (point == "a")]
        cv2.circle(shown, (x, y), radius, colour, -1, cv2.LINE_AA)
        cv2.circle(validity, (x, y), radius, _VALID, -1)
    return [shown, _grey(validity)]


def _grey(values: NDArray[Any]) -> Picture:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
