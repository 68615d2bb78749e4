"""Netpbm's grey maps and pixmaps, binary or as text: PGM and PPM, their samples as stored."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import check_size

_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(
    rb"P(?P<kind>[2356])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(?P<white>\d{1,5})\s"
)
_HEADER_BYTES = 4096
_TEXT, _COLOUR = (b"2", b"3"), (b"3", b"6")
_COMMENT = re.compile(rb"#[^\n]*")


def white_of(data: bytes) -> int | None:
    """The largest value that the PGM or PPM `data` can hold, by its header; None if it is neither."""
    header = _HEADER.match(data[:_HEADER_BYTES])
    return int(header["white"]) if header else None


def decode_netpbm(data: bytes, role: str) -> NDArray[Any]:
    """Decode the PGM or PPM `data`, binary or text; errors begin with `role`.

    Returns (H, W) or, of a PPM, (H, W, 3) as stored: uint8 up to a largest value of 255, else uint16. Raises
    BadSample if the header is damaged or does not fit what follows.
    """
    header = _HEADER.match(data[:_HEADER_BYTES])
    if header is None:
        raise BadSample(f"{role} is not a PGM or PPM (starts {data[:8]!r})")
    width, height, white = int(header[2]), int(header[3]), int(header["white"])
    check_size(height, width, role)
    shape = (height, width, 3) if header["kind"] in _COLOUR else (height, width)
    dtype = np.dtype(np.uint16 if white > 255 else np.uint8)
    if header["kind"] in _TEXT:
        values = _numbers(data[header.end() :], role)
    else:
        # The upper of two bytes comes first.
        rest = len(data) - (len(data) - header.end()) % dtype.itemsize
        values = np.frombuffer(data[:rest], dtype.newbyteorder(">"), offset=header.end())
    if values.size != np.prod(shape) or not 0 < white < 2**16 or values.max() > white:
        declared = f"header says {width}x{height} up to {white} = {np.prod(shape)} values"
        largest = f" up to {values.max()}" if values.size else ""
        raise BadSample(f"{role} PGM does not fit: {declared}, file has {values.size}{largest}")
    return values.astype(dtype).reshape(shape)


def _numbers(text: bytes, role: str) -> NDArray[np.int64]:
    try:
        return np.array(_COMMENT.sub(b"", text).split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise BadSample(f"{role} PGM damaged: {error!s:.100}") from error
