"""Maps stored as TIFF: numbers of 8 to 64 bits, as depth cameras, GIS tools and NumPy users write them."""

import io
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats import tiff_tags
from datasets_prep.formats.pictures import check_size, decode_with_opencv
from datasets_prep.formats.tiff_tags import TiffTags

_FORMATS = {1: "unsigned integer", 2: "signed integer", 3: "float", 5: "complex integer", 6: "complex"}
_TYPES = {
    (format_, 8 * np.dtype(name).itemsize): np.dtype(name)
    for format_, names in ((1, "u1 u2 u4 u8"), (2, "i1 i2 i4 i8"), (3, "f2 f4 f8"))
    for name in names.split()
}
_COLOURS = {2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1


def decode_tiff(data: bytes, role: str) -> NDArray[np.float32]:
    """Decode the first picture of the one-channel TIFF `data`; errors begin with `role`.

    Returns (H, W) float32: values as stored, where they are stored, whatever the tags say of orientation and
    of black and white. Raises BadSample if the file is damaged, too large, or has several channels, colours
    or samples of another type, which it names.
    """
    try:
        tags = TiffTags(data)
    except ValueError as error:
        raise BadSample(f"{role} is not a TIFF, or damaged from its start: {error}") from error
    height, width = tags.number(tiff_tags.HEIGHT, 0), tags.number(tiff_tags.WIDTH, 0)
    check_size(height, width, role)
    dtype = _sample_type(tags, role)
    expected = width * height * dtype.itemsize
    if tags.number(tiff_tags.COMPRESSION, 1) == 1 and expected > len(data):
        sizes = f"header says {width}x{height} = {expected} bytes, file has {len(data)}"
        raise BadSample(f"{role} TIFF truncated: {sizes}")
    # Samples of up to 16 bits travel through the decoders as unsigned integers of their size.
    carrier = {tiff_tags.SAMPLE_FORMAT: 1} if dtype.itemsize <= 2 else {}
    plain = {tiff_tags.ORIENTATION: 1, tiff_tags.PHOTOMETRIC: _BLACK_IS_ZERO}
    # Of others, if compressed and in big-endian order, Pillow exchanges the bytes once too often.
    exchanged = data.startswith(b"MM") and tags.number(tiff_tags.COMPRESSION, 1) != 1
    values = _samples(tags.replaced(plain | carrier), role, by_pillow=bool(carrier) or not exchanged)
    if values.dtype.itemsize == dtype.itemsize:
        # Pillow reads unsigned integers of 32 bits and signed ones of 8 as if they were of the other kind.
        values = values.astype(values.dtype.newbyteorder("=")).view(dtype)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _sample_type(tags: TiffTags, role: str) -> np.dtype[Any]:
    """The sample type of a one-channel TIFF. Raises BadSample, naming what it has instead."""
    channels = tags.number(tiff_tags.CHANNELS, 1)
    meaning = tags.number(tiff_tags.PHOTOMETRIC, 1)
    if channels != 1 or meaning not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        found = _COLOURS.get(meaning, f"{channels} channels")
        raise BadSample(f"{role} TIFF has pixels of kind {found}, expected one channel")
    format_, bits = tags.number(tiff_tags.SAMPLE_FORMAT, 1), tags.number(tiff_tags.BITS, 1)
    if (format_, bits) not in _TYPES:
        found = f"{bits}-bit {_FORMATS.get(format_, f'samples of format {format_}')}"
        raise BadSample(f"{role} TIFF has {found}; read are integers and floats of 8 to 64 bits")
    return _TYPES[format_, bits]


def _samples(data: bytes, role: str, by_pillow: bool) -> NDArray[Any]:
    """The (H, W) samples of a one-channel TIFF; Pillow knows more compressions, OpenCV more sample types."""
    from PIL import Image, UnidentifiedImageError

    try:
        if not by_pillow:
            raise UnidentifiedImageError
        with warnings.catch_warnings():
            # Damage that matters also raises an error.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=["TIFF"])
            check_size(picture.height, picture.width, role)
            return np.asarray(picture)
    except BadSample:
        raise
    except UnidentifiedImageError:
        values = decode_with_opencv(data, f"{role} TIFF", cv2.IMREAD_UNCHANGED)
        if values.ndim != 2:
            raise BadSample(f"{role} TIFF has an array of {values.shape}, expected one channel") from None
        return values
    except Exception as error:  # the library raises anything from KeyError to struct.error
        raise BadSample(f"{role} TIFF damaged: {error}") from error
