"""A shard row → a training crop: decoded, then cropped and mirrored straight into a batch's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import UserError
from datasets_prep.ingest.label_rows import CLASSES
from datasets_prep.manifest import PreparedDataset
from datasets_prep.schema import decode_depth, decode_image, decode_inverse_depth, decode_label
from datasets_prep.sources.base import IGNORED_LABEL
from pipelines.loading.shard_reader import ShardReader


def decode_row(row: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """A row's image (H, W, 3) uint8 and inverse depth (H, W) float16.

    Raises:
        ValueError: naming the sample, if its bytes are damaged or it has no inverse depth.
    """
    if row["inverse_depth"] is None:
        raise ValueError(f"sample {row['sample_id']}: it has no inverse depth to train on")
    try:
        image = decode_image(row["image"])
        inverse_depth = decode_inverse_depth(row["inverse_depth"], row["height"], row["width"])
    except ValueError as error:
        raise ValueError(f"sample {row['sample_id']}: {error}") from error
    if image.shape[:2] != inverse_depth.shape:
        shapes = f"image is {image.shape[:2]}, inverse depth is {inverse_depth.shape}"
        raise ValueError(f"sample {row['sample_id']}: {shapes}")
    return image, inverse_depth


def decode_evaluation_row(row: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """As `decode_row`, but inverse depth is float32 where the row has depth at its native resolution.

    It is divided by its maximum, as stored inverse depth is; `scale` is that maximum where it is metric.

    Raises:
        ValueError: naming the sample, if its bytes are damaged.
    """
    if row["depth"] is None:
        return decode_row(row)
    try:
        image = decode_image(row["image"])
        inverse_depth = 1 / decode_depth(row["depth"], row["height"], row["width"])
    except ValueError as error:
        raise ValueError(f"sample {row['sample_id']}: {error}") from error
    return image, inverse_depth / np.nanmax(inverse_depth)


def crop_and_flip(
    image: NDArray[np.uint8],
    inverse_depth: NDArray[np.float16],
    draws: NDArray[np.float64],
    flip: bool,
    image_out: NDArray[np.uint8],
    inverse_depth_out: NDArray[np.float16],
) -> None:
    """A random crop, mirrored half of the time if `flip`; what is too small is padded as invalid.

    Args:
        image: (H, W, 3).
        inverse_depth: (H, W).
        draws: three numbers in [0, 1): vertical position, horizontal position, flip.
        image_out: (h, w, 3), contiguous; written to.
        inverse_depth_out: (h, w), contiguous; written to.
    """
    height, width = inverse_depth_out.shape
    there, wide = inverse_depth.shape
    top = int(draws[0] * (max(0, there - height) + 1))
    left = int(draws[1] * (max(0, wide - width) + 1))
    mirror = flip and bool(draws[2] < 0.5)
    window = np.s_[top : top + height, left : left + width]
    inside = np.s_[: min(height, there), : min(width, wide)]
    if there < height or wide < width:
        image_out.fill(0)
        inverse_depth_out.fill(np.nan)
    _copy(image[window], image_out[inside], mirror)
    # OpenCV moves float16 as the 16-bit integers that it is stored as.
    _copy(inverse_depth[window].view(np.int16), inverse_depth_out[inside].view(np.int16), mirror)


def _copy(source: NDArray[Any], target: NDArray[Any], mirror: bool) -> None:
    if not mirror:
        target[...] = source
        return
    # NumPy copies a mirrored row byte by byte: for RGB that takes as long as decoding the JPEG.
    cv2.flip(source, 1, dst=target)


class BadLabels(UserError, ValueError):
    """A prepared sample without usable labels; the message names it."""


LABEL_COLUMNS = ("sample_id", "dataset", "image", "label", "scale")


def decode_labelled_row(row: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A row's image (H, W, 3) uint8 and classes (H, W) uint8, 255 where nothing is labelled.

    Args:
        row: has `LABEL_COLUMNS`.

    Raises:
        BadLabels: naming the sample, if its bytes are damaged, or a label is none of its dataset's classes.
    """
    name = row["sample_id"]
    if row["label"] is None or row["dataset"] not in CLASSES:
        raise BadLabels(f"sample {name}: it has no labels of {', '.join(CLASSES)}")
    try:
        image, labels = decode_image(row["image"]), decode_label(row["label"])
    except ValueError as error:
        raise BadLabels(f"sample {name}: {error}") from error
    if image.shape[:2] != labels.shape:
        raise BadLabels(f"sample {name}: image is {image.shape[:2]}, labels are {labels.shape}")
    classes = CLASSES[row["dataset"]]
    wrong = labels[(labels >= classes) & (labels != IGNORED_LABEL)]
    if wrong.size:
        raise BadLabels(f"sample {name}: label {wrong.max()} is none of {row['dataset']}'s {classes} classes")
    return image, labels


def labelled_images(
    dataset: PreparedDataset, split: str, rank: int, world_size: int
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """A rank's share of a split, each sample once: its name, image and classes at their own size.

    Raises:
        NotADataset: if there is no such split.
        BadLabels: as `decode_labelled_row`.
    """
    reader = ShardReader([dataset], split, LABEL_COLUMNS)
    try:
        for group in range(rank, len(reader.row_groups[0]), world_size):
            for row in reader.rows(0, group):
                yield (row["sample_id"], *decode_labelled_row(row))
    finally:
        reader.close()
