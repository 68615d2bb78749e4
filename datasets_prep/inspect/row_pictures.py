"""A shard's row as pictures: the image, its ground truth, and the validity of the latter."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.ingest.normalize import resize_nearest_valid
from datasets_prep.schema import decode_depth, decode_image, decode_inverse_depth, decode_label
from datasets_prep.sources.base import IGNORED_LABEL
from dpt.predict.colours import colourise, paint_classes

Picture = NDArray[np.uint8]

HEIGHT = 384
"""Larger rows, such as evaluation rows at native resolution, are drawn at this height."""

_SKY, _VALID = 128, 255
_POINT_COLOURS = {True: (255, 60, 60), False: (60, 160, 255)}


def pictures_of_row(row: dict[str, Any]) -> list[Picture]:
    """Image, ground truth and validity of `row`, each (H, W, 3) uint8 RGB of one size.

    Ground truth: inverse depth (bright is near), classes in the colours of Pascal VOC, or the image with its
    two points, the farther one red. Validity: white where there is ground truth, grey where it is sky.
    """
    image = decode_image(row["image"])
    factor = min(1.0, HEIGHT / image.shape[0])
    shape = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
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
    return [shrunk, *_of_points(shrunk // 2, row["point_pair"], image.shape)]


def _of_inverse_depth(values: NDArray[np.float32], shape: tuple[int, int]) -> list[Picture]:
    values, valid = resize_nearest_valid(values, np.isfinite(values), shape)
    values = np.where(valid, values, np.nan)
    validity = np.where(valid, np.where(values == 0, _SKY, _VALID), 0)
    return [np.asarray(colourise(values), np.uint8), _grey(validity)]


def _of_labels(labels: NDArray[np.uint8], shape: tuple[int, int]) -> list[Picture]:
    labels = np.asarray(cv2.resize(labels, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return [paint_classes(labels), _grey(np.where(labels != IGNORED_LABEL, _VALID, 0))]


def _of_points(shown: Picture, pair: dict[str, Any], size: tuple[int, ...]) -> list[Picture]:
    """The points, which were annotated in an image of that size, drawn into the shrunk and darkened image."""
    shape = shown.shape
    validity = np.zeros(shape[:2], np.uint8)
    radius = max(3, shape[0] // 40)
    for point in "ab":
        y, x = (round(pair[f"{axis}_{point}"] * shape[i] / size[i]) for i, axis in enumerate("yx"))
        colour = _POINT_COLOURS[pair["a_is_farther"] == (point == "a")]
        cv2.circle(shown, (x, y), radius, colour, -1, cv2.LINE_AA)
        cv2.circle(validity, (x, y), radius, _VALID, -1)
    return [shown, _grey(validity)]


def _grey(values: NDArray[Any]) -> Picture:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
