"""Bytes of an image file → pixels as shown: in every format that OpenCV or Pillow reads."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import check_aspect, note_stretched
from dpt.predict.bit_depth import NotDecoded, decode_photo


class Unreadable(BadSample):
    """Bytes that no decoder reads; the message goes on after `… is`."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """The image `data` with its EXIF orientation applied: (H, W, 3) uint8 RGB; a `Note` if it is stretched.

    Raises:
        Unreadable: if it is not a readable image.
        BadSample: if it is too long a strip to be resized.
    """
    try:
        image, bits = _decoded(data)
    except PIL.UnidentifiedImageError as error:
        raise Unreadable("not a readable image") from error
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise Unreadable(f"not a readable image: {error}") from error
    check_aspect(*image.shape[:2])
    if bits is not None:
        note_stretched(bits)
    return image


def _decoded(data: bytes) -> tuple[NDArray[np.uint8], int | None]:
    """As `decode_photo`, by Pillow where OpenCV cannot, and of AVIF, which OpenCV does not turn.

    Raises ValueError for samples of 32 bits: Pillow would clip them to 8.
    """
    if data[4:12] not in (b"ftypavif", b"ftypavis"):
        with suppress(NotDecoded):
            return decode_photo(data)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        if picture.mode[0] in "IF":
            raise ValueError(f"an image of samples {picture.mode!r}, expected integers of 8 or 16 bits")
        return np.array(PIL.ImageOps.exif_transpose(picture).convert("RGB")), None
