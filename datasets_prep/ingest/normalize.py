"""One raw sample → one row of a shard: inverse depth in [0, 1] with validity, resized, checked.

All datasets are brought to one representation here, and only here (paper section 4.1; MiDaS, section 5):

* Depth becomes inverse depth. Metric and up-to-scale targets are divided by their maximum, so 0 stays
  infinitely far; affine targets, whose zero has no meaning, are stretched to [0, 1].
* Sky, where a source marks it, is valid and 0: the network is to learn that it is far.
* The image is averaged over areas when it shrinks. Ground truth is never averaged: each output pixel takes
  the nearest valid source pixel that overlaps its own footprint, so no value is invented across a depth edge,
  from invalid pixels or from neighbours.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_plain, encode_jpeg
from datasets_prep.schema import encode_inverse_depth
from datasets_prep.settings import IngestSettings, ResizeRule, ShardSettings
from datasets_prep.sources.base import RawSample, TargetKind


@dataclass(frozen=True, slots=True)
class Target:
    """A normalised ground-truth map.

    Attributes:
        inverse_depth: (H, W) float16 in [0, 1], NaN where invalid.
        sky_share: share of pixels that are 0 because they are sky.
        scale: `inverse_depth · scale` is in 1/metres; None where the source is not metric.
    """

    inverse_depth: NDArray[np.float16]
    sky_share: float
    scale: float | None


def resized_shape(height: int, width: int, side: int, rule: ResizeRule) -> tuple[int, int]:
    """The size of a `height` × `width` image whose shorter or longer side, by `rule`, becomes `side`.

    The aspect ratio is kept to the nearest pixel: 480 × 640 becomes 384 × 512 with 384 and `shorter`.
    """
    if rule == "none":
        return height, width
    reference = min(height, width) if rule == "shorter" else max(height, width)
    return max(1, round(height * side / reference)), max(1, round(width * side / reference))


def normalize(
    raw: RawSample, target_kind: TargetKind, settings: IngestSettings, sizes_may_differ: bool = False
) -> dict[str, Any]:
    """The pixel columns of a training row.

    Args:
        raw: image and ground truth.
        target_kind: kind of ground truth.
        settings: size, JPEG quality, and least share and range of valid ground truth.
        sizes_may_differ: resize the target to the image instead of refusing a difference.

    Raises:
        BadSample: with the reason, if the sample is damaged, empty or flat.
    """
    data, image = decode_plain(raw.image)
    height, width = image.shape[:2]
    if raw.target.shape != (height, width) and not sizes_may_differ:
        rows, columns = raw.target.shape
        raise BadSample(f"size mismatch: image is {width}x{height}, ground truth is {columns}x{rows}")
    shape = resized_shape(height, width, settings.side, settings.resize)
    return {
        **target_columns(raw, target_kind, shape, settings),
        "image": encode_resized(data, image, shape, settings.jpeg_quality),
    }


def target_columns(
    raw: RawSample, target_kind: TargetKind, shape: tuple[int, int], settings: ShardSettings
) -> dict[str, Any]:
    """The columns of a training row but its image: the ground truth of `raw`, (H, W) = `shape` as stored.

    `target_kind` and `settings` are as in `normalize`. Raises BadSample if the ground truth cannot be used.
    """
    target = normalize_target(raw, target_kind, shape, settings.min_valid_share, settings.min_dynamic_range)
    valid_values = target.inverse_depth[~np.isnan(target.inverse_depth)].astype(np.float32)
    return {
        "inverse_depth": encode_inverse_depth(target.inverse_depth),
        "height": shape[0],
        "width": shape[1],
        "target_kind": target_kind,
        "scale": target.scale,
        "valid_share": valid_values.size / target.inverse_depth.size,
        "sky_share": target.sky_share,
        "inverse_depth_min": float(valid_values.min()),
        "inverse_depth_median": float(np.median(valid_values)),
        "inverse_depth_max": float(valid_values.max()),
    }


def normalize_target(
    raw: RawSample,
    target_kind: TargetKind,
    shape: tuple[int, int],
    min_valid_share: float,
    min_dynamic_range: float = 1.0,
) -> Target:
    """Resize and normalise the ground truth of a sample.

    Args:
        raw: its target, validity and sky at native resolution.
        target_kind: kind of ground truth.
        shape: (H, W) of the result.
        min_valid_share: least share of pixels with ground truth, sky not counted.
        min_dynamic_range: least ratio between the 98th and the 2nd percentile of inverse depth.

    Raises:
        BadSample: if too little of it is valid, or all of it has one value.
    """
    inverse_depth, valid = raw_inverse_depth(raw)
    inverse_depth, valid = resize_nearest_valid(inverse_depth, valid, shape)
    sky = np.zeros(shape, bool)
    if raw.sky is not None:
        rows, columns = nearest_indices(raw.sky.shape, shape)
        # A valid surface wins over sky: thin structures against the sky must not be eaten by it.
        sky = raw.sky[rows[:, None], columns[None, :]] & ~valid
    require_depth(valid, min_valid_share)
    values = inverse_depth[valid].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    zero = low if target_kind == "affine" else 0.0
    if not high > low and not sky.any():
        raise BadSample(f"all valid ground truth has one value ({high:g}): nothing to learn from")
    if not sky.any():
        _require_range(values - zero if target_kind == "affine" else values, min_dynamic_range)
    span = high - zero if high > zero else 1.0
    normalised = np.full(shape, np.nan, np.float32)
    normalised[valid] = (values - zero) / span
    normalised[sky] = 0.0
    scale = span if target_kind == "metric" else None
    return Target(normalised.astype(np.float16), float(sky.mean()), scale)


def require_depth(valid: NDArray[np.bool_], min_valid_share: float) -> None:
    """Refuse a (H, W) bool map `valid` of which less than `min_valid_share` is True.

    Raises BadSample, naming both shares.
    """
    share = float(valid.mean())
    if share < min_valid_share:
        needed = f"at least {min_valid_share:.2%} needed"
        raise BadSample(f"only {share:.2%} of the pixels have valid ground truth, {needed}")


def _require_range(values: NDArray[np.float64], min_dynamic_range: float) -> None:
    """Refuse a flat map: the ratio of the 98th to the 2nd percentile must reach `min_dynamic_range`.

    Affine values, whose zero is arbitrary, come counted from the farthest, so the 2nd percentile is near 0
    and the ratio only fails where the two percentiles (nearly) agree.
    """
    # Every n-th value, about 20,000 in all, gives the percentiles precisely enough in a tenth of the time.
    low, high = np.percentile(values[:: max(1, values.size // 20_000)], (2, 98))
    if high <= 0 or high < low * min_dynamic_range:
        found = f"inverse depth spans a factor of {high / low if low else 1:.3f}"
        raise BadSample(f"ground truth is flat: {found}, at least {min_dynamic_range:g} needed")


def raw_inverse_depth(raw: RawSample) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Inverse depth of `raw` at native resolution and its validity: finite, and depth positive."""
    valid = raw.valid & np.isfinite(raw.target)
    if raw.quantity == "inverse_depth":
        return raw.target, valid
    valid &= raw.target > 0
    # Divided in float64 and checked again: the inverse of a subnormal depth overflows float32.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = (1.0 / raw.target.astype(np.float64)).astype(np.float32)
    return inverse, valid & np.isfinite(inverse)


def nearest_indices(old: tuple[int, ...], new: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of source pixels, `old` (h, w, …), under the centres of output pixels, `new` (H, W).

    The centre of output pixel i of n lies at (i + 0.5) · o / n of o source pixels; the pixel that contains it
    is the integer part. From 5 to 2: 1.25 and 3.75, so pixels 1 and 3.
    """
    sides = zip(old[:2], new, strict=True)
    rows, columns = (np.minimum(((np.arange(n) + 0.5) * o / n).astype(np.intp), o - 1) for o, n in sides)
    return rows, columns


def resize_nearest_valid(
    values: NDArray[np.float32], valid: NDArray[np.bool_], shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Resize without mixing values: the nearest valid source pixel under each output pixel's footprint.

    The footprint of output pixel i of n is [i · o / n, (i + 1) · o / n) of o source pixels: from 10 to 8,
    output pixel 1 covers [1.25, 2.5), so it may take source pixels 1 and 2 and nothing of their neighbours.
    Nearest is by distance of the centres; of equal ones the upper, then the left pixel is taken.

    From `values` (h, w) float32 and `valid` (h, w) bool to (H, W) = `shape`, smaller or larger, of the same
    types; an output pixel is invalid where its whole footprint is.
    """
    (height, width), (rows, columns) = values.shape, shape
    centres = np.ix_(*nearest_indices(values.shape, shape))
    out, out_valid = values[centres], valid[centres]
    # Most centres are valid; of the others, only footprints that have a valid pixel are searched.
    counts = cv2.integral(valid.astype(np.uint8))
    (top, bottom), (left, right) = (_footprints(o, n) for o, n in zip(values.shape, shape, strict=True))
    above, below = counts[top], counts[bottom]
    i, j = np.nonzero(~out_valid & (below[:, right] - below[:, left] > above[:, right] - above[:, left]))
    best = np.full(i.size, np.iinfo(np.int64).max)
    for dy, dx in itertools.product(range((bottom - top).max()), range((right - left).max())):
        y, x = top[i] + dy, left[j] + dx
        inside = (y < bottom[i]) & (x < right[j])
        # Vertical and horizontal distance in units of 1 / (2 · rows · columns) source pixels.
        down = columns * ((2 * y + 1) * rows - (2 * i + 1) * height)
        across = rows * ((2 * x + 1) * columns - (2 * j + 1) * width)
        distance = down**2 + across**2
        y, x = np.minimum(y, height - 1), np.minimum(x, width - 1)
        nearer = inside & valid[y, x] & (distance < best)
        best[nearer] = distance[nearer]
        out[i[nearer], j[nearer]] = values[y[nearer], x[nearer]]
        out_valid[i[nearer], j[nearer]] = True
    return out, out_valid


def _footprints(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First source pixel of `old` that overlaps each of `new` output pixels, and the one behind the last."""
    i = np.arange(new)
    return i * old // new, -((i + 1) * -old // new)


def encode_resized(data: bytes, image: NDArray[np.uint8], shape: tuple[int, int], quality: int) -> bytes:
    """The image as JPEG of the size `shape` (height, width) and `quality`; `data` if it is that already.

    `data` are the plain bytes of the image file, and `image` (H, W, 3) uint8 its pixels (`decode_plain`).
    """
    if image.shape[:2] == shape:
        return data if simplejpeg.is_jpeg(data) else encode_jpeg(image, quality)
    shrinks = shape[0] < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(image, (shape[1], shape[0]), interpolation=method)
    return encode_jpeg(np.asarray(resized, np.uint8), quality)
