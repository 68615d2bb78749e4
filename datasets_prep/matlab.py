"""MATLAB files of version 5, as label maps and lists of indices come in them.

SciPy reads them; sizes are checked first against what the header declares, as everywhere.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats import MAX_PIXELS


def decode_matlab_array(data: bytes, role: str, name: str) -> NDArray[Any]:
    """One numeric variable of a MATLAB file of version 5.

    Returns:
        Two-dimensional, in the file's own type.

    Raises:
        BadSample: if the file is damaged, or has no such numeric variable.
    """
    import scipy.io

    try:
        shapes = {found: shape for found, shape, _ in scipy.io.whosmat(io.BytesIO(data))}
        if name in shapes and 0 < np.prod(shapes[name], dtype=np.float64) <= MAX_PIXELS:
            values = scipy.io.loadmat(io.BytesIO(data), variable_names=[name]).get(name)
        else:
            values = None
    except Exception as error:  # the library's errors are of many kinds, TypeError to zlib.error
        raise BadSample(f"{role} MATLAB file damaged: {error}") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise BadSample(f"{role} MATLAB file has no numeric variable {name}, but {sorted(shapes)[:8]}")
    return values


def encode_matlab_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Encode numeric arrays as a MATLAB file of version 5, compressed."""
    import scipy.io

    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays, do_compression=True)
    data = stream.getvalue()
    # The first 116 bytes are free text, into which the library writes the time.
    return b"MATLAB 5.0 MAT-file".ljust(116) + data[116:]
