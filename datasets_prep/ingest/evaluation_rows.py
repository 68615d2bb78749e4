"""Rows of the splits for evaluation: image bytes and ground truth as the dataset stores them.

The zero-shot protocol compares a prediction, resized to the ground truth, at the native resolution of the
ground truth; a second JPEG generation or half-precision depth would add an error to the published metrics.
"""

from typing import Any

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_plain
from datasets_prep.ingest.normalize import raw_inverse_depth
from datasets_prep.schema import POINT_PAIR, encode_depth
from datasets_prep.sources.base import RawPointPair, RawSample, TargetKind


def evaluation_depth_columns(raw: RawSample, target_kind: TargetKind) -> dict[str, Any]:
    """The pixel columns of `raw` with float32 depth at native resolution, NaN where there is none.

    Sky counts as "no ground truth": the protocol compares depth, and sky has none. One valid pixel is enough:
    the benchmark's authors chose its images. `scale` is set if `target_kind` is metric. Raises BadSample with
    the reason, if image or ground truth are damaged, of different sizes, or empty.
    """
    data, image = decode_plain(raw.image)
    height, width = image.shape[:2]
    inverse, valid = raw_inverse_depth(raw)
    if valid.shape != (height, width):
        rows, columns = valid.shape
        raise BadSample(f"size mismatch: image is {width}x{height}, ground truth is {columns}x{rows}")
    if not valid.any():
        raise BadSample("ground truth is empty: no pixel is valid")
    values = inverse[valid]
    largest = float(values.max())
    depth = np.full(valid.shape, np.nan, np.float32)
    depth[valid] = raw.target[valid] if raw.quantity == "depth" else 1 / values
    return {
        "image": data,
        "depth": encode_depth(depth),
        "height": height,
        "width": width,
        "target_kind": target_kind,
        "scale": largest if target_kind == "metric" else None,
        "valid_share": values.size / valid.size,
        "sky_share": 0.0,
        "inverse_depth_min": float(values.min()) / largest,
        "inverse_depth_median": float(np.median(values)) / largest,
        "inverse_depth_max": 1.0,
    }


def point_pair_columns(raw: RawPointPair) -> dict[str, Any]:
    """The pixel columns of `raw`, whose ground truth is the order of two points.

    Raises BadSample if the image is damaged or a point lies outside it.
    """
    data, image = decode_plain(raw.image)
    height, width = image.shape[:2]
    for name, y, x in (("A", raw.y_a, raw.x_a), ("B", raw.y_b, raw.x_b)):
        if not (0 <= y < height and 0 <= x < width):
            raise BadSample(f"point {name} at row {y}, column {x} lies outside the image of {width}x{height}")
    return {
        "image": data,
        "point_pair": {field.name: getattr(raw, field.name) for field in POINT_PAIR},
        "height": height,
        "width": width,
        "target_kind": "ordinal",
    }
