"""Photos of 9 to 16 bits a channel, which files store in 16, as 8 bits."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import cast

import cv2
import numpy as np
import PIL.Image
from PIL.TiffImagePlugin import PLANAR_CONFIGURATION, SAMPLESPERPIXEL, TiffImageFile

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class NotDecoded(ValueError):
    """Bytes that OpenCV does not read as an image."""


def decode_photo(data: bytes) -> tuple[np.ndarray, int | None]:
    """Decode an image file with its EXIF orientation applied.

    Args:
        data: content of the file, in any format that OpenCV reads.

    Returns:
        (H, W, 3) uint8 RGB, and how many bits of 16-bit samples were significant (None: 8-bit samples).

    Raises:
        NotDecoded: if OpenCV does not read it.
        ValueError: if its samples are not of 8 or 16 bits; if it is a TIFF of 16 bits in planes.
    """
    try:
        mode = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error as error:  # among others, more pixels than OpenCV decodes
        raise NotDecoded(f"not a readable image: {error.err}") from error
    if pixels is None:
        raise NotDecoded("not a readable image")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"an image of {pixels.dtype} samples, expected integers of 8 or 16 bits")
    if pixels.dtype == np.uint16 and _in_planes(data):  # which OpenCV mixes up
        raise ValueError("a TIFF of 16 bits with its channels one after another, expected pixel by pixel")
    bits = significant_bits(data, pixels)
    rgb = np.ascontiguousarray(eight_bits(pixels, bits)[..., ::-1])
    return rgb, bits if pixels.dtype == np.uint16 else None


def significant_bits(data: bytes, pixels: np.ndarray) -> int:
    """How many of its bits a photo uses: 12 of 16 if the camera's 4095 is white.

    A PNG may say so (`sBIT`); but where a value needs more bits than it says, its writer has scaled all to
    the full range, as the format demands. Else the bits of the largest value count, rounded up to those that
    sensors have (10, 12, 14, 16), so that frames of a dark and of a bright scene are seldom treated
    differently.

    Args:
        data: content of the image file.
        pixels: its samples without alpha, uint8 or uint16.

    Returns:
        8 to 16.
    """
    if pixels.dtype == np.uint8:
        return 8
    needed, declared = int(pixels.max(initial=0)).bit_length(), _declared_bits(data)
    if declared:
        return max(8, declared) if needed <= declared else 16
    return max(8, needed + needed % 2)


def eight_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Scale samples from 0 … 2^bits − 1 to 0 … 255, rounded.

    Args:
        pixels: uint8 or uint16, of any shape.
        bits: the number of `significant_bits`.

    Returns:
        uint8, of the same shape.
    """
    if pixels.dtype == np.uint8:
        return pixels
    levels = np.arange(2**bits)
    return np.rint(levels * (255 / levels[-1])).astype(np.uint8)[pixels]


def _in_planes(data: bytes) -> bool:
    """Whether this is a TIFF of several channels that are pictures of their own (PlanarConfiguration 2)."""
    if not data.startswith((b"II", b"MM")):
        return False
    with suppress(OSError), PIL.Image.open(io.BytesIO(data), formats=["TIFF"]) as picture:
        tags = cast(TiffImageFile, picture).tag_v2
        return bool(tags.get(PLANAR_CONFIGURATION) == 2 and tags.get(SAMPLESPERPIXEL, 1) > 1)
    return False


def _declared_bits(data: bytes) -> int:
    """The largest number in the chunk `sBIT` of a PNG, alpha left out; 0 if there is none."""
    position = len(_PNG_MAGIC)
    while data.startswith(_PNG_MAGIC) and position + 8 < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"sBIT":
            bits = data[position + 8 : position + 8 + length]
            return max(bits[: 1 if length < 3 else 3], default=0)
        if kind == b"IDAT":
            break
        position += length + 12
    return 0
