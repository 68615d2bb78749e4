"""HDF5 files: datasets that can be trusted, and files too large to be loaded, read piece by piece.

An HDF5 file can refer to other files on the machine that reads it (external links, virtual and external
storage), and declare chunks of any size. Such datasets are refused here.
"""

import atexit
import io
import math
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import MAX_PIXELS
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.pieces import FilePieces
from datasets_prep.storage.retries import persistently

MAX_BYTES = 8 * MAX_PIXELS
"""Largest size of an array that is read: the largest picture in double precision."""

MAX_CHUNKS = 100_000
"""Largest number of chunks that are read: each costs a look-up, even if empty. Real files have hundreds."""

_BUFFER_BYTES = 256 * 2**10


def decode_hdf5_array(data: bytes, role: str, name: str, ndim: int) -> NDArray[Any]:
    """The whole numeric dataset `name` (without a leading slash) of the small HDF5 file `data`.

    Errors begin with `role`. Raises BadSample if the file is damaged or has no such dataset of `ndim`
    dimensions.
    """
    import h5py  # type: ignore[import-untyped, unused-ignore]

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            stored = trusted_dataset(file, role, name, ndim)
            _check_cost(stored, role, stored.shape)
            values: NDArray[Any] = stored[()]
            return values
    except BadSample:
        raise
    except Exception as error:  # the library raises anything from RuntimeError to KeyError
        raise BadSample(f"{role} HDF5 damaged: {error}") from error


def encode_hdf5_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Encode `arrays`, path → values, as a compressed HDF5 file without time stamps."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip", track_times=False)
    return stream.getvalue()


def trusted_dataset(file: Any, role: str, name: str, ndim: int) -> Any:
    """The numeric dataset `name` of the open `h5py.File` `file`, whose values lie in the file itself.

    It must have `ndim` dimensions. Errors begin with `role`: BadSample, naming what the file has instead.
    """
    import h5py

    place = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise BadSample(f"{role} HDF5 has no dataset /{name}, but {sorted(file)!r:.200}")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.ndim != ndim or place.dtype.kind not in "fiu":
        raise BadSample(f"{role} HDF5: /{name} is not an array of {ndim} dimensions but {place!s:.200}")
    if place.is_virtual or place.external:
        raise BadSample(f"{role} HDF5: the values of /{name} lie in other files")
    return place


def _check_cost(stored: Any, role: str, shape: tuple[int, ...]) -> None:
    """Refuse to read `shape` out of a dataset whose header asks for too much memory or time.

    A chunk is read and unpacked whole. `shape` may lack leading axes of the dataset (one entry is read), so
    chunks are counted along its own axes: 640 x 480 of (1449, 640, 480) in chunks of (1, 100, 480) touch
    ceil(640 / 100) * ceil(480 / 480) = 7 chunks.
    """
    chunk = stored.chunks or tuple(max(1, side) for side in shape)
    chunks = math.prod(-(-side // step) for side, step in zip(shape, chunk[-len(shape) :], strict=True))
    largest = max(math.prod(shape), math.prod(chunk)) * stored.dtype.itemsize
    if not math.prod(shape) or largest > MAX_BYTES or chunks > MAX_CHUNKS:
        raise BadSample(f"{role} HDF5: {stored.name} declares {stored.shape} in pieces of {chunk}")


class LargeHdf5:
    """The HDF5 file `relative` in `folder`, of which only the requested parts are read; see `open_hdf5`."""

    def __init__(self, folder: Folder, relative: str) -> None:
        import h5py

        self._where = relative
        self._pieces = FilePieces(folder.fs, folder.path_of(relative))
        try:
            self._file = h5py.File(io.BufferedReader(self._pieces, _BUFFER_BYTES), "r")
        except Exception as error:
            self._fail(error)

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of the dataset `name` of `ndim` dimensions, from its header.

        Raises BadSample if the dataset does not exist or the file is damaged; StorageFailed if the file
        cannot be read.
        """
        try:
            shape: tuple[int, ...] = trusted_dataset(self._file, self._where, name, ndim).shape
            return shape
        except Exception as error:
            self._fail(error)

    def item(self, name: str, ndim: int, index: int) -> NDArray[Any]:
        """Entry `index` along the first axis of the dataset `name` with `ndim` axes; raises as `shape`."""
        try:
            stored = trusted_dataset(self._file, self._where, name, ndim)
            _check_cost(stored, self._where, stored.shape[1:])
            return np.asarray(stored[index])
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """Tell a storage failure apart from a damaged file, which the library reports alike."""
        if self._pieces.failure is not None:
            failure, self._pieces.failure = self._pieces.failure, None
            raise failure from error
        if isinstance(error, BadSample):
            raise error
        raise BadSample(f"{self._where} HDF5 damaged: {error}") from error


def open_hdf5(folder: Folder, relative: str) -> LargeHdf5:
    """The file `relative` in `folder` in its current state, opened once per process.

    Raises FileNotFoundError if it does not exist; BadSample if it is damaged; StorageFailed if it cannot be
    read.
    """
    path = folder.path_of(relative)
    return _opened(folder.uri, relative, persistently("read", folder.fs.ukey, path))


@lru_cache(maxsize=2)
def _opened(uri: str, relative: str, state: str) -> LargeHdf5:
    """The file, kept open while its `state` (an fsspec key of size and time) is the same."""
    return LargeHdf5(Folder(uri), relative)


# HDF5 closes open files after Python has shut down and would read through this module: a crash.
atexit.register(_opened.cache_clear)
