"""Rows of segmentation sets: image and label map at one size.

Labels are classes, not quantities: a resized map takes the label of the nearest pixel. Splits for evaluation
keep image bytes and labels as they are, for mean IoU is measured at the labels' own resolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_rgb
from datasets_prep.ingest.normalize import encode_resized, nearest_indices, resized_shape
from datasets_prep.schema import encode_label
from datasets_prep.settings import ResizeRule
from datasets_prep.sources.base import IGNORED_LABEL, RawLabels

CLASSES = {"ade20k": 150, "pascal_context_59": 59, "pascal_context_60": 60}
"""Segmentation set → number of its classes; labels are 0 to that number less one, or 255."""


def label_columns(
    raw: RawLabels, *, side: int, rule: ResizeRule, jpeg_quality: int, min_valid_share: float, native: bool
) -> dict[str, Any]:
    """The columns of a row with a label map.

    Args:
        side, rule: the output's size, unless `native`.
        min_valid_share: the least share of labelled pixels, unless `native`.

    Raises:
        BadSample: with the reason, if image or labels are damaged, differ in size, or little is labelled.
    """
    image = decode_rgb(raw.image)
    height, width = image.shape[:2]
    if raw.labels.shape != (height, width):
        rows, columns = raw.labels.shape
        raise BadSample(f"size mismatch: image is {width}x{height}, label map is {columns}x{rows}")
    share = float(np.mean(raw.labels != IGNORED_LABEL))
    if not native and share < min_valid_share:
        raise BadSample(f"only {share:.2%} of the pixels are labelled, at least {min_valid_share:.2%} needed")
    shape = (height, width) if native else resized_shape(height, width, side, rule)
    rows, columns = nearest_indices((height, width), shape)
    return {
        "image": raw.image if native else encode_resized(raw.image, image, shape, jpeg_quality),
        "label": encode_label(raw.labels[rows[:, None], columns[None, :]]),
        "height": shape[0],
        "width": shape[1],
        "target_kind": "labels",
        "valid_share": share,
    }
