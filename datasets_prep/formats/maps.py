"""Maps of numbers: PFM, NPY, Sintel's .dpt, raw floats, OpenEXR."""

import io
import math
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import MAX_PIXELS, check_size

_NPY_MAGIC = b"\x93NUMPY"
_SINTEL_TAG = b"PIEH"
_PFM_HEADER = re.compile(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,32})[ \t]*\r?\n")
_PFM_HEADER_BYTES = 256
_NPY_MAX_HEADER_BYTES = 4096
_NPY_DESCR = re.compile(r"'descr':\s*'([<>|=]?[fiub]\d{1,2})'")
_NPY_ORDER = re.compile(r"'fortran_order':\s*(True|False)")
_NPY_SHAPE = re.compile(r"'shape':\s*\(([\d, ]{0,64})\)")


def decode_pfm(data: bytes, role: str) -> NDArray[np.float32]:
    """Decode the one-channel PFM `data`: `Pf`, width, height, scale, then float32 rows from the bottom up.

    Errors begin with `role`. Any white space may separate the header's fields; LF or CRLF must end it. The
    sign of the scale gives the byte order (negative: little-endian); its magnitude is ignored, as in every
    depth reader. Returns (H, W) float32, top row first. Raises BadSample if the header is damaged, declares
    three channels, or does not fit the file's size.
    """
    header = _PFM_HEADER.match(data[:_PFM_HEADER_BYTES])
    if header is None:
        raise BadSample(f"{role} is not a PFM (starts {data[:12]!r})")
    if header[1] != b"Pf":
        raise BadSample(f"{role} PFM has three channels, expected one")
    width, height = int(header[2]), int(header[3])
    check_size(height, width, role)
    try:
        scale = float(header[4])
    except ValueError as error:
        raise BadSample(f"{role} PFM has scale {header[4]!r}") from error
    payload = memoryview(data)[header.end() :]
    expected = width * height * 4
    if len(payload) != expected:
        problem = "truncated" if len(payload) < expected else "longer than its header says"
        sizes = f"header says {width}x{height} = {expected} bytes, file has {len(payload)}"
        raise BadSample(f"{role} PFM {problem}: {sizes}")
    stored = np.frombuffer(payload, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return stored[::-1].astype(np.float32)


def encode_pfm(values: NDArray[np.float32]) -> bytes:
    """Encode the (H, W) float32 `values` as a little-endian one-channel PFM."""
    height, width = values.shape
    return f"Pf\n{width} {height}\n-1.000000\n".encode() + values[::-1].astype("<f4").tobytes()


def decode_npy(data: bytes, role: str) -> NDArray[Any]:
    """Decode the numeric `.npy` file `data`, version 1 to 3, without NumPy's loader (which can unpickle).

    Errors begin with `role`. Returns any shape; floats, integers or booleans, in native byte order. Raises
    BadSample if the header is damaged, names another kind of value, or does not fit the file's size.
    """
    header, start = _npy_header(data, role)
    descr, order, shape = (pattern.search(header) for pattern in (_NPY_DESCR, _NPY_ORDER, _NPY_SHAPE))
    if descr is None or order is None or shape is None:
        raise BadSample(f"{role} NPY header does not describe a numeric array: {header[:120]!r}")
    try:
        dtype = np.dtype(descr[1])
    except TypeError as error:
        raise BadSample(f"{role} NPY has unknown type {descr[1]!r}") from error
    dimensions = tuple(int(number) for number in shape[1].split(",") if number.strip().isdigit())
    count = math.prod(dimensions)
    if not 0 < count <= MAX_PIXELS:
        raise BadSample(f"{role} NPY declares {count} values: {dimensions}")
    expected, found = count * dtype.itemsize, len(data) - start
    if expected != found:
        sizes = f"header says {dimensions} {dtype} = {expected} bytes, file has {found}"
        raise BadSample(f"{role} NPY does not fit: {sizes}")
    stored = np.frombuffer(data, dtype, offset=start)
    values = stored.reshape(dimensions, order="F" if order[1] == "True" else "C")
    return values.astype(dtype.newbyteorder("="))


def encode_npy(values: NDArray[Any]) -> bytes:
    """Encode the numeric array `values` as `.npy` version 1.0, C order, little-endian."""
    stream = io.BytesIO()
    stored = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    np.lib.format.write_array(stream, stored, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def decode_sintel_depth(data: bytes, role: str) -> NDArray[np.float32]:
    """Decode MPI Sintel's `.dpt`: the tag `PIEH`, int32 width and height, then float32 rows from the top.

    `data` is the content of the file; errors begin with `role`. Returns (H, W) float32. Raises BadSample if
    the tag is missing or the header does not fit the file's size.
    """
    if not data.startswith(_SINTEL_TAG) or len(data) < 12:
        raise BadSample(f"{role} is not a Sintel depth file ({len(data)} bytes, starts {data[:8]!r})")
    width, height = struct.unpack_from("<2i", data, 4)
    check_size(height, width, role)
    expected, found = width * height * 4, len(data) - 12
    if expected != found:
        sizes = f"header says {width}x{height} = {expected} bytes, file has {found}"
        raise BadSample(f"{role} does not fit: {sizes}")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width).astype(np.float32)


def encode_sintel_depth(values: NDArray[np.float32]) -> bytes:
    """Encode the (H, W) float32 `values` as MPI Sintel's `.dpt`."""
    height, width = values.shape
    return _SINTEL_TAG + struct.pack("<2i", width, height) + values.astype("<f4").tobytes()


def decode_raw_floats(data: bytes, role: str, height: int, width: int) -> NDArray[np.float32]:
    """Decode `height` × `width` little-endian float32 `data` without a header; errors begin with `role`.

    Returns (H, W) float32. Raises BadSample if there are more or fewer bytes.
    """
    expected = height * width * 4
    if len(data) != expected:
        raise BadSample(f"{role} has {len(data)} bytes, {width}x{height} float32 needs {expected}")
    return np.frombuffer(data, "<f4").reshape(height, width).astype(np.float32)


def exr_channels(data: bytes, role: str) -> list[str]:
    """Names of the channels of the OpenEXR file `data`; BadSample, which begins with `role`, if damaged."""
    import OpenEXR  # type: ignore[import-not-found, unused-ignore]

    try:
        header = OpenEXR.File(io.BytesIO(data), header_only=True, num_threads=1).parts[0].header
        return [channel.name for channel in header["channels"]]
    except Exception as error:  # the library raises anything that its C++ code throws
        raise BadSample(f"{role} EXR damaged: {error}") from error


def decode_exr(
    data: bytes, role: str, channels: Sequence[str], or_single: bool = True
) -> NDArray[np.float32]:
    """Decode one channel of the single-part OpenEXR file `data`; errors begin with `role`.

    The `channels` are names in order of preference; if the file has none of them, with `or_single` its only
    channel is taken.
    Returns (H, W) float32, the display window: its pixels are those of the picture; where the data window
    does not cover it there is NaN. Raises BadSample if it is damaged, has several parts, or none of the
    channels.
    """
    # Imported here: only one dataset needs it, and every worker would pay for loading it.
    import OpenEXR  # type: ignore[import-not-found, unused-ignore]

    try:
        parts = OpenEXR.File(io.BytesIO(data), header_only=True, num_threads=1).parts
        if len(parts) == 1:
            left, top, width, height = _window(parts[0].header["dataWindow"])
            shown_left, shown_top, shown_width, shown_height = _window(parts[0].header["displayWindow"])
            # All channels are decoded together, so all count towards the size.
            check_size(height, width * max(1, len(parts[0].header["channels"])), role)
            check_size(shown_height, shown_width, role)
            found = OpenEXR.File(io.BytesIO(data), separate_channels=True, num_threads=1).channels()
    except BadSample:
        raise
    except Exception as error:  # the library raises anything that its C++ code throws
        raise BadSample(f"{role} EXR damaged: {error}") from error
    if len(parts) != 1:
        raise BadSample(f"{role} EXR has {len(parts)} parts, expected one")
    names = [name for name in channels if name in found] or (
        list(found) if or_single and len(found) == 1 else []
    )
    if not names:
        raise BadSample(f"{role} EXR has channels {sorted(found)!r:.200}, expected {' or '.join(channels)}")
    values = found[names[0]].pixels
    if values is None or values.shape != (height, width):
        raise BadSample(f"{role} EXR damaged: channel {names[0]} does not cover {width}x{height}")
    if (left, top, width, height) == (shown_left, shown_top, shown_width, shown_height):
        return values.astype(np.float32)
    shown = np.full((shown_height, shown_width), np.nan, np.float32)
    x, y = left - shown_left, top - shown_top
    covered = values[max(0, -y) : max(0, shown_height - y), max(0, -x) : max(0, shown_width - x)]
    shown[max(0, y) :, max(0, x) :][: covered.shape[0], : covered.shape[1]] = covered
    return shown


def _window(corners: Any) -> tuple[int, int, int, int]:
    """Left, top, width and height of a box, which EXR stores as (x, y) of its first and last pixel."""
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in corners)
    return left, top, right - left + 1, bottom - top + 1


def encode_exr(channels: dict[str, NDArray[np.float32]]) -> bytes:
    """Encode (H, W) float32 `channels` by name as a single-part scan-line OpenEXR file, ZIP-compressed."""
    import OpenEXR  # type: ignore[import-not-found, unused-ignore]

    stream = io.BytesIO()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    stored = {name: np.ascontiguousarray(values) for name, values in channels.items()}
    OpenEXR.File(header, stored).write(stream)
    return stream.getvalue()


def _npy_header(data: bytes, role: str) -> tuple[str, int]:
    """The header's text and the position where the values start."""
    if not data.startswith(_NPY_MAGIC) or len(data) < 12:
        raise BadSample(f"{role} is not an NPY file ({len(data)} bytes, starts {data[:8]!r})")
    if data[6] == 1:
        (length,), start = struct.unpack_from("<H", data, 8), 10
    else:
        (length,), start = struct.unpack_from("<I", data, 8), 12
    if length > _NPY_MAX_HEADER_BYTES or start + length > len(data):
        raise BadSample(f"{role} NPY header damaged: {length} bytes long in a file of {len(data)}")
    return data[start : start + length].decode("latin-1"), start + length
