"""Rows with a label map: decoded, checked against the dataset's classes, and one by one for evaluation.

Loading processes import this module, so it imports no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import UserError
from datasets_prep.ingest.label_rows import CLASSES
from datasets_prep.manifest import PreparedDataset
from datasets_prep.schema import decode_image, decode_label
from datasets_prep.sources.base import IGNORED_LABEL
from pipelines.loading.shard_reader import ShardReader


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
