"""Photos of a user, in any common format: as JPEG or PNG bytes, with their EXIF orientation."""

import io
import warnings

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats import tiff_tags
from datasets_prep.formats.netpbm import decode_netpbm, white_of
from datasets_prep.formats.pictures import (
    check_size,
    decode_rgb,
    decode_with_opencv,
    encode_png,
    image_size,
    png_chunks,
)
from datasets_prep.formats.tiff_tags import TiffTags

ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff")

_ORIENTATION_TAG = 0x0112
_PNG_MAGIC, _JPEG_MAGIC, _EXIF = b"\x89PNG", b"\xff\xd8", b"Exif\0\0"
_TIFF_MAGICS = (b"II", b"MM")
_UINT16, _GREY_OR_RGB = (16, 1), (1, 2)  # bits and sample format of a TIFF; its photometric interpretation
_WHITE_8, _WHITE_16 = 255, 65535
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's names for pixels of 8 bits


def read_photo(data: bytes, role: str = "image") -> tuple[bytes, int]:
    """The photo `data` as JPEG or PNG, and its EXIF orientation, 1 to 8 (1: as stored, or none given).

    JPEG and PNG keep their bytes; other formats become PNG, pixels as stored. Errors begin with `role`:
    BadSample if the file is damaged, in no known format, or holds several pictures or samples other than
    integers of up to 16 bits.
    """
    if data.startswith(_PNG_MAGIC):
        image_size(data, role)
        exif = [bytes(content) for kind, content in png_chunks(data, role) if kind == b"eXIf"]
        return data, _orientation_of(exif[0]) if exif else 1
    if data.startswith(_JPEG_MAGIC):
        image_size(data, role)
        return data, _orientation_of(data)
    return _decode_other(data, role)


def upright(data: bytes, orientation: int) -> bytes:
    """The JPEG or PNG `data` turned as its EXIF `orientation` says, as PNG; `data` itself if that is 1."""
    if orientation == 1:
        return data
    return encode_png(np.ascontiguousarray(_turned(decode_rgb(data), orientation)))


def _turned(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """EXIF: row 0 and column 0 of `stored` are the shown picture's … side (2: top, right; 6: right, top)."""
    mirrored = stored[:, ::-1]
    turns = {
        2: mirrored,
        3: np.rot90(stored, 2),
        4: stored[::-1],
        5: np.rot90(mirrored),
        6: np.rot90(stored, -1),
        7: np.rot90(mirrored, -1),
        8: np.rot90(stored),
    }
    return turns[orientation]


def _valid(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _orientation_of(data: bytes) -> int:
    """Of a JPEG, or of the content of a PNG's chunk `eXIf`."""
    from PIL import Image

    # Not by opening the JPEG: stray bytes between its segments, harmless to the picture, would hide the tag.
    start = data.find(_EXIF) if data.startswith(_JPEG_MAGIC) else 0
    if start < 0:
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = Image.Exif()
            exif.load(data[start:])
            return _valid(exif.get(_ORIENTATION_TAG))
    except Exception:  # damaged metadata, for which the library raises anything: the photo may be good
        return 1


def _deep_pixels(data: bytes, role: str) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """The RGB or grey samples of a TIFF, PPM or PGM of 16 bits, of which Pillow keeps the upper 8; else None.

    A PPM or PGM says which value is white; if that is not the largest of 16 bits, 255 takes its place.
    """
    white = white_of(data)
    if white is not None:
        if white <= _WHITE_8:
            return None
        stored = decode_netpbm(data, role)
        return stored if white == _WHITE_16 else np.rint(stored * (_WHITE_8 / white)).astype(np.uint8)
    if not data.startswith(_TIFF_MAGICS):
        return None
    tags = TiffTags(data)
    kind = tuple(tags.number(tag, 1) for tag in (tiff_tags.BITS, tiff_tags.SAMPLE_FORMAT))
    if kind != _UINT16 or tags.number(tiff_tags.PHOTOMETRIC, 1) not in _GREY_OR_RGB:
        return None
    if tags.number(tiff_tags.PLANES, 1) != 1:
        raise BadSample(f"{role} TIFF of 16 bits has its channels one after another, expected pixel by pixel")
    plain = tags.replaced({tiff_tags.ORIENTATION: 1})
    bgr = decode_with_opencv(plain, role, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return bgr[..., ::-1]


def _decode_other(data: bytes, role: str) -> tuple[bytes, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(data), formats=["WEBP", "BMP", "PPM", "TIFF"])
        check_size(picture.height, picture.width, role)
        deep = _deep_pixels(data, role)
        if deep is None and picture.mode not in _MODES:
            raise BadSample(f"{role} has pixels of kind {picture.mode}, expected 8 or 16 bits a channel")
        if (count := getattr(picture, "n_frames", 1)) != 1:
            raise BadSample(f"{role} file holds {count} pictures, expected one")
        exif = picture.getexif()
        # Pillow itself would turn a TIFF by this tag.
        orientation = _valid(exif.pop(_ORIENTATION_TAG, 1))
        return encode_png(np.asarray(picture.convert("RGB")) if deep is None else deep), orientation
    except BadSample:
        raise
    except UnidentifiedImageError as error:  # its message contains a memory address
        known = "neither JPEG nor PNG, WebP, BMP, PPM, PGM or TIFF"
        raise BadSample(f"{role} is {known} ({len(data)} bytes, starts {data[:8]!r})") from error
    except Exception as error:  # the library raises anything from SyntaxError to struct.error
        raise BadSample(f"{role} damaged: {error}") from error
