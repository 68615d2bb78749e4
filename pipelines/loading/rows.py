"""A shard's row → arrays: image and ground truth, decoded and checked.

Loading processes import this module, so it imports neither PyTorch nor Ray nor MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import UserError
from datasets_prep.ingest.label_rows import CLASSES
from datasets_prep.manifest import PreparedDataset
from datasets_prep.schema import decode_depth, decode_image, decode_inverse_depth, decode_label
from datasets_prep.sources.base import IGNORED_LABEL
from pipelines.loading.shard_reader import ShardReader

Row = dict[str, Any]
"""Column → value."""

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""

LABEL_COLUMNS = ("sample_id", "dataset", "image", "label", "scale")


class BadRow(UserError):
    """A prepared sample that is damaged or has not the ground truth that is needed; the message names it."""


def size_of(row: Row) -> tuple[int, int]:
    """(height, width) of the ground truth of `row`, in pixels."""
    return row["height"], row["width"]


def decode_row(row: Row) -> tuple[Image, NDArray[np.float16]]:
    """Image (H, W, 3) uint8 and inverse depth (H, W) float16 of `row`.

    Raises:
        BadRow: naming the sample, if its bytes are damaged or it has no inverse depth.
    """
    if row["inverse_depth"] is None:
        raise BadRow(f"sample {row['sample_id']}: it has no inverse depth to train on")
    try:
        image = decode_image(row["image"])
        inverse_depth = decode_inverse_depth(row["inverse_depth"], *size_of(row))
    except ValueError as error:
        raise BadRow(f"sample {row['sample_id']}: {error}") from error
    if image.shape[:2] != inverse_depth.shape:
        shapes = f"image is {image.shape[:2]}, inverse depth is {inverse_depth.shape}"
        raise BadRow(f"sample {row['sample_id']}: {shapes}")
    return image, inverse_depth


def decode_native_row(row: Row) -> tuple[Image, NDArray[np.float32]]:
    """Image (H, W, 3) uint8 and depth (H, W) float32 of a `row` with depth at its native resolution.

    Raises:
        BadRow: naming the sample, if its bytes are damaged.
    """
    try:
        return decode_image(row["image"]), decode_depth(row["depth"], *size_of(row))
    except ValueError as error:
        raise BadRow(f"sample {row['sample_id']}: {error}") from error


def decode_evaluation_row(row: Row) -> tuple[Image, NDArray[np.floating]]:
    """As `decode_row`, but with float32 inverse depth from a `row` with depth at its native resolution.

    It is divided by its maximum, as stored inverse depth is; `scale` is that maximum if depth is metric.

    Raises:
        BadRow: naming the sample, if its bytes are damaged.
    """
    if row["depth"] is None:
        return decode_row(row)
    image, depth = decode_native_row(row)
    inverse_depth = 1 / depth
    return image, inverse_depth / np.nanmax(inverse_depth)


def decode_any_inverse_depth(row: Row) -> NDArray[np.floating]:
    """Inverse depth (H, W) of a `row`, NaN where invalid, without decoding its image; its unit is arbitrary.

    Raises:
        BadRow: naming the sample, if its bytes are damaged.
    """
    try:
        if row["depth"] is None:
            return decode_inverse_depth(row["inverse_depth"], *size_of(row))
        return 1 / decode_depth(row["depth"], *size_of(row))
    except ValueError as error:
        raise BadRow(f"sample {row['sample_id']}: {error}") from error


def decode_labelled_row(row: Row) -> tuple[Image, NDArray[np.uint8]]:
    """Image (H, W, 3) uint8 and classes (H, W) uint8 of a `row` with `LABEL_COLUMNS`; 255 is unlabelled.

    Raises:
        BadRow: naming the sample, if its bytes are damaged, or a label is not a class of its dataset.
    """
    name = row["sample_id"]
    if row["label"] is None or row["dataset"] not in CLASSES:
        raise BadRow(f"sample {name}: it has no labels of {', '.join(CLASSES)}")
    try:
        image, labels = decode_image(row["image"]), decode_label(row["label"])
    except ValueError as error:
        raise BadRow(f"sample {name}: {error}") from error
    if image.shape[:2] != labels.shape:
        raise BadRow(f"sample {name}: image is {image.shape[:2]}, labels are {labels.shape}")
    classes = CLASSES[row["dataset"]]
    wrong = labels[(labels >= classes) & (labels != IGNORED_LABEL)]
    if wrong.size:
        raise BadRow(
            f"sample {name}: label {wrong.max()} is not one of the {classes} classes of {row['dataset']}"
        )
    return image, labels


def labelled_images(
    dataset: PreparedDataset, split: str, rank: int, world_size: int
) -> Iterator[tuple[str, Image, NDArray[np.uint8]]]:
    """Sample id, image and classes of each sample of a labelled `dataset`'s `split` once, at their own size.

    Each of `world_size` ranks has every `world_size`-th row group; this is the share of `rank`, from 0.

    Raises:
        NotADataset: if there is no such split.
        BadRow: see `decode_labelled_row`.
    """
    reader = ShardReader([dataset], split, LABEL_COLUMNS)
    try:
        for group in range(rank, len(reader.row_groups[0]), world_size):
            for row in reader.rows(0, group):
                yield (row["sample_id"], *decode_labelled_row(row))
    finally:
        reader.close()
