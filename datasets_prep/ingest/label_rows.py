"""Rows of segmentation sets: image and label map at one size.

Labels are classes, not quantities: a resized map takes the label of the nearest pixel. Splits for evaluation
keep image bytes and labels as they are, because mean IoU is measured at the labels' native resolution.
"""

from typing import Any

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_plain
from datasets_prep.ingest.normalize import encode_resized, nearest_indices, resized_shape
from datasets_prep.schema import encode_label
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import IGNORED_LABEL, RawLabels

CLASSES = {"ade20k": 150, "pascal_context_59": 59, "pascal_context_60": 60}
"""Segmentation set → number of classes; labels are 0 to that number minus one, or 255."""


def label_columns(raw: RawLabels, settings: IngestSettings, for_evaluation: bool) -> dict[str, Any]:
    """The pixel columns of a row with the image and label map `raw`; kept as they are if `for_evaluation`.

    Else `settings` decide size, JPEG quality and the least share of labelled pixels. Raises BadSample with
    the reason, if image or labels are damaged, differ in size, or too few are labelled.
    """
    data, image = decode_plain(raw.image)
    height, width = image.shape[:2]
    if raw.labels.shape != (height, width):
        rows, columns = raw.labels.shape
        raise BadSample(f"size mismatch: image is {width}x{height}, label map is {columns}x{rows}")
    share, least = float(np.mean(raw.labels != IGNORED_LABEL)), settings.min_valid_share
    shape = height, width
    if not for_evaluation:
        if share < least:
            raise BadSample(f"only {share:.2%} of the pixels are labelled, at least {least:.2%} needed")
        shape = resized_shape(height, width, settings.side, settings.resize)
        data = encode_resized(data, image, shape, settings.jpeg_quality)
    rows, columns = nearest_indices((height, width), shape)
    return {
        "image": data,
        "label": encode_label(raw.labels[rows[:, None], columns[None, :]]),
        "height": shape[0],
        "width": shape[1],
        "target_kind": "labels",
        "valid_share": share,
    }
