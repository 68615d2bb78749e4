"""The disparity and uncertainty files of 3DVideos2Stereo: PNG with the scale in text chunks.

Disparity: 16 bits of grey and two tEXt chunks, disparity = `offset` + `scale` · value in pixels. Uncertainty:
8 bits of grey in tenths of a pixel; 255 stands for 25.5 and more.
"""

import math
import re

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import (
    PNG_HEADER_BYTES,
    decode_grey_png,
    encode_png,
    png_chunk,
    png_chunks,
)

_TENTHS = 10
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")


def encode_disparity(disparity: NDArray[np.float32]) -> bytes:
    """Encode the (H, W) finite float32 pixels `disparity`, quantised to 65,536 steps of their own range."""
    low, high = float(disparity.min()), float(disparity.max())
    scale = (high - low) / 65535 if high > low else 1.0
    steps = np.round((disparity.astype(np.float64) - low) / scale).astype(np.uint16)
    png = encode_png(steps)
    text = _text_chunk("offset", repr(low)) + _text_chunk("scale", repr(scale))
    return png[:PNG_HEADER_BYTES] + text + png[PNG_HEADER_BYTES:]


def decode_disparity(data: bytes, role: str = "depth") -> NDArray[np.float32]:
    """Decode the disparity map in `data`; errors begin with `role`.

    Returns (H, W) float32 pixels, may be negative. Raises BadSample if the PNG is damaged, not 16 bits deep,
    or lacks `offset` or `scale`.
    """
    steps = decode_grey_png(data, role)
    if steps.dtype != np.uint16:
        raise BadSample(f"{role} PNG has 8 bits, expected 16")
    text = _text_chunks(data, role)
    offset, scale = (_number(text, key, role) for key in ("offset", "scale"))
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = (offset + scale * steps.astype(np.float64)).astype(np.float32)
    if not np.isfinite(values).all():
        raise BadSample(f"{role} PNG has offset {offset:g} and scale {scale:g}, which overflow")
    return values


def encode_uncertainty(uncertainty: NDArray[np.float32]) -> bytes:
    """Encode the (H, W) float32 pixels `uncertainty`, which may be infinite."""
    return encode_png(np.round(np.minimum(_TENTHS * uncertainty, 255)).astype(np.uint8))


def decode_uncertainty(data: bytes, role: str = "uncertainty") -> NDArray[np.float32]:
    """Decode the uncertainty map in `data`; errors begin with `role`.

    Returns (H, W) float32 pixels; 25.5 stands for 25.5 and more. Raises BadSample if the PNG is damaged or
    not 8 bits deep.
    """
    tenths = decode_grey_png(data, role)
    if tenths.dtype != np.uint8:
        raise BadSample(f"{role} PNG has 16 bits, expected 8")
    return tenths.astype(np.float32) / np.float32(_TENTHS)


def _text_chunk(key: str, value: str) -> bytes:
    return png_chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1"))


def _text_chunks(data: bytes, role: str) -> dict[str, str]:
    """Key → value of every tEXt chunk of a PNG."""
    texts = (bytes(body).decode("latin-1") for kind, body in png_chunks(data, role) if kind == b"tEXt")
    return {key: value for key, _, value in (text.partition("\0") for text in texts)}


def _number(text: dict[str, str], key: str, role: str) -> float:
    if key not in text:
        raise BadSample(f"{role} PNG has no text {key!r}, expected offset and scale")
    value = text[key].strip()[:64]
    if not _NUMBER.fullmatch(value) or not math.isfinite(float(value)):
        raise BadSample(f"{role} PNG has {key} {value!r}, expected a number")
    return float(value)
