"""Maps stored as TIFF: 8, 16 or 32 bits, integers or floats, as depth cameras and GIS tools write them."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import MAX_PIXELS

_MODES = ("L", "I;16", "I;16B", "I", "F")  # Pillow's names for one channel of integers or floats


def decode_tiff(data: bytes, role: str) -> NDArray[np.float32]:
    """Decode the first picture of the one-channel TIFF `data`; errors begin with `role`.

    Returns (H, W) float32, values as stored. Raises BadSample if the file is damaged, too large or has
    several channels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Damage that matters also raises an error.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=["TIFF"])
            width, height = picture.size
            if height * width > MAX_PIXELS:
                raise BadSample(f"{role} TIFF declares {width}x{height} pixels")
            if picture.mode not in _MODES:
                raise BadSample(f"{role} TIFF has pixels of kind {picture.mode}, expected one channel")
            return np.asarray(picture).astype(np.float32)
    except BadSample:
        raise
    except UnidentifiedImageError as error:  # its message contains a memory address
        raise BadSample(f"{role} is not a TIFF, or damaged from its start") from error
    except Exception as error:  # the library raises anything from KeyError to struct.error
        raise BadSample(f"{role} TIFF damaged: {error}") from error
