"""MATLAB files of version 5 that hold label maps and lists of indices.

SciPy's reader is not used, because damaged files (a few in a thousand, where the damage is below the
compression) end the process with a segmentation fault. Only matrices of real numbers are understood,
compressed or not, little-endian. The format: "MAT-File Format", MathWorks, chapter 1. A file is a header of
128 bytes and elements, each with a tag of 8 bytes, its type and size. A matrix (type 14) consists of four
elements: flags, dimensions, name and values; a compressed element (type 15) is a deflated one of these.
"""

import io
import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import MAX_PIXELS

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_MAX_HEAD_BYTES = 4096  # enough for flags, dimensions and name of a matrix, which precede its values
_MAX_MATRIX_BYTES = 8 * MAX_PIXELS + _MAX_HEAD_BYTES
_COMPLEX = 0x0800

# Type of stored values → NumPy's: MATLAB stores a matrix in the smallest type that holds its values.
_STORED_TYPES = {
    **{1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4"},
    **{7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"},
}
_CLASSES = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=6))
"""Class of a matrix in MATLAB → NumPy type."""


def decode_matlab_array(data: bytes, role: str, name: str) -> NDArray[Any]:
    """The matrix `name` of real numbers in the MATLAB file `data` of version 5; errors begin with `role`.

    Returns two-dimensional, in the type that the matrix has in MATLAB. Raises BadSample if the file is
    damaged or has no such matrix.
    """
    if len(data) < _HEADER_BYTES or data[124:128] != b"\x00\x01IM":
        raise BadSample(f"{role} MATLAB file is not of version 5 ({len(data)} bytes, starts {data[:8]!r})")
    try:
        found = []
        for kind, content in _elements(data[_HEADER_BYTES:]):
            tag = struct.pack("<2I", kind, len(content))
            head = _inflated(content, _MAX_HEAD_BYTES) if kind == _COMPRESSED else tag + content
            found.append(_name(head))
            if found[-1] == name:
                return _matrix(_inflated(content, _MAX_MATRIX_BYTES) if kind == _COMPRESSED else head)
    except (_Damaged, struct.error, zlib.error) as error:
        raise BadSample(f"{role} MATLAB file damaged: {error}") from error
    raise BadSample(f"{role} MATLAB file has no matrix {name}, but {sorted(found)!r:.200}")


class _Damaged(ValueError):
    """The file contradicts itself."""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each element of a file.

    Elements are padded to multiples of 8 bytes, except compressed ones: -5 % 8 = 3 bytes follow 5.
    """
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from("<2I", data, position)
        start, position = position + 8, position + 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise _Damaged(f"truncated: an element of {size} bytes where {len(data) - start} are left")
        yield kind, data[start : start + size]


def _inflated(data: bytes, most: int) -> bytes:
    """At most the first `most` bytes of a compressed element, which is an element itself."""
    return zlib.decompressobj().decompress(data, most)


def _parts(matrix: bytes) -> Iterator[tuple[int, memoryview]]:
    """Type and content of flags, dimensions, name and values of a matrix, as far as they are complete.

    Up to four bytes lie in the tag itself, whose first word then holds size and type in 16 bits each: the
    name `ab` is 01 00 02 00 'a' 'b' 00 00, type 1 and size 2, instead of a tag and 8 padded bytes.
    """
    if len(matrix) < 8 or struct.unpack_from("<I", matrix)[0] != _MATRIX:
        raise _Damaged("an element that is not a matrix")
    position = 8
    while position + 8 <= len(matrix):
        kind, size = struct.unpack_from("<2I", matrix, position)
        start, position = position + 8, position + 8 + size + -size % 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, start - 4
            position = start + 4
        yield kind, memoryview(matrix)[start : start + size]


def _name(head: bytes) -> str:
    _, name = next(itertools.islice(_parts(head), 2, None), (0, b""))
    return bytes(name).decode("latin-1")


def _matrix(element: bytes) -> NDArray[Any]:
    parts = list(_parts(element))[:4]
    if len(parts) < 4 or len(parts[0][1]) != 8 or len(parts[1][1]) != 8:
        raise _Damaged("a matrix that is not of two dimensions, or without values")
    (_, flags), (_, dimensions), _, (kind, values) = parts
    (attributes,) = struct.unpack_from("<I", flags)
    code, shape = _CLASSES.get(attributes & 0xFF), struct.unpack("<2i", dimensions)
    stored = _STORED_TYPES.get(kind)
    if code is None or stored is None or attributes & _COMPLEX:
        raise _Damaged(f"a matrix of no real numbers (class {attributes & 0xFF}, type {kind})")
    if min(shape) < 1 or math.prod(shape) > MAX_PIXELS:
        raise _Damaged(f"declares {shape[0]}x{shape[1]} values")
    if len(values) != math.prod(shape) * np.dtype(stored).itemsize:
        raise _Damaged(f"declares {shape[0]}x{shape[1]} values of {stored}, holds {len(values)} bytes")
    # Floats stored for a matrix of integers are cast, as in other readers.
    with np.errstate(invalid="ignore"):
        return np.frombuffer(values, stored).astype(code).reshape(shape, order="F")


def encode_matlab_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Encode numeric `arrays` by name as a compressed MATLAB file of version 5."""
    import scipy.io

    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays, do_compression=True)
    data = stream.getvalue()
    # The first 116 bytes are free text, to which the library writes the time.
    return b"MATLAB 5.0 MAT-file".ljust(116) + data[116:]
