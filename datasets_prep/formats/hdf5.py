"""HDF5 files: datasets that can be trusted, and files too large to be loaded, read piece by piece.

An HDF5 file can name other files of the machine that reads it (external links, virtual and external
storage), and declare chunks of any size. Nothing of the kind is followed here.
"""

from __future__ import annotations

import atexit
import io
import math
from functools import lru_cache, partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import MAX_PIXELS
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import StorageFailed, persistently

MAX_BYTES = 8 * MAX_PIXELS
"""Of an array that is read: the largest picture in double precision."""

MAX_CHUNKS = 100_000
"""Of an array that is read: each costs a look-up, even where nothing is stored. Real files have hundreds."""

_BUFFER_BYTES = 256 * 2**10


def decode_hdf5_array(data: bytes, role: str, name: str, ndim: int) -> NDArray[Any]:
    """A whole numeric dataset of a small HDF5 file.

    Args:
        data: the file's content.
        role: for the reason of a refusal.
        name: path in the file, without a leading slash.
        ndim: the number of dimensions that it must have.

    Raises:
        BadSample: if the file is damaged or has no such dataset.
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
    except Exception as error:  # the library's errors are of many kinds, RuntimeError to KeyError
        raise BadSample(f"{role} HDF5 damaged: {error}") from error


def encode_hdf5_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Encode arrays by their paths as a compressed HDF5 file without time stamps."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip", track_times=False)
    return stream.getvalue()


def trusted_dataset(file: Any, role: str, name: str, ndim: int) -> Any:
    """A numeric dataset whose values lie in the file itself; `file` is an open `h5py.File`.

    Raises:
        BadSample: naming what is there instead.
    """
    import h5py

    place = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise BadSample(f"{role} HDF5 has no dataset /{name}, but {sorted(file)!r:.200}")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.ndim != ndim or place.dtype.kind not in "fiu":
        raise BadSample(f"{role} HDF5: /{name} is no array of {ndim} dimensions but {place!s:.200}")
    if place.is_virtual or place.external:
        raise BadSample(f"{role} HDF5: the values of /{name} lie in other files")
    return place


def _check_cost(stored: Any, role: str, shape: tuple[int, ...]) -> None:
    """Refuse to read `shape` out of a dataset whose header asks for too much memory or time."""
    chunk = stored.chunks or tuple(max(1, side) for side in shape)
    chunks = math.prod(-(-side // step) for side, step in zip(shape, chunk[-len(shape) :], strict=True))
    largest = max(math.prod(shape), math.prod(chunk)) * stored.dtype.itemsize
    if not math.prod(shape) or largest > MAX_BYTES or chunks > MAX_CHUNKS:
        raise BadSample(f"{role} HDF5: {stored.name} declares {stored.shape} in pieces of {chunk}")


class LargeHdf5:
    """An HDF5 file on any file system, of which only what is asked for is read.

    Get it by `open_hdf5`; it stays open as long as the process lives.
    """

    def __init__(self, folder: Folder, relative: str) -> None:
        import h5py

        self._where = relative
        self._pieces = _Pieces(folder, relative)
        try:
            self._file = h5py.File(io.BufferedReader(self._pieces, _BUFFER_BYTES), "r")
        except Exception as error:
            self._fail(error)

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a dataset, from its header.

        Raises:
            BadSample: if it is not there or the file is damaged.
            StorageFailed: if the file cannot be read.
        """
        try:
            shape: tuple[int, ...] = trusted_dataset(self._file, self._where, name, ndim).shape
            return shape
        except Exception as error:
            self._fail(error)

    def item(self, name: str, ndim: int, index: int) -> NDArray[Any]:
        """One entry along the first axis of a dataset; raises as `shape`."""
        try:
            stored = trusted_dataset(self._file, self._where, name, ndim)
            _check_cost(stored, self._where, stored.shape[1:])
            return np.asarray(stored[index])
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """Storage that failed is told apart from a damaged file: the library reports both alike."""
        if self._pieces.failure is not None:
            failure, self._pieces.failure = self._pieces.failure, None
            raise failure from error
        if isinstance(error, BadSample):
            raise error
        raise BadSample(f"{self._where} HDF5 damaged: {error}") from error


def open_hdf5(folder: Folder, relative: str) -> LargeHdf5:
    """The file as it is now, opened once a process.

    Raises:
        FileNotFoundError: if it is not there.
        BadSample: if it is damaged.
        StorageFailed: if it cannot be read.
    """
    path = folder.path_of(relative)
    stamp = persistently("read", path, partial(folder.fs.ukey, path))
    return _opened(_Address(folder, relative, stamp))


class _Address:
    """A folder's file at one state; equal for all folders of one URI."""

    def __init__(self, folder: Folder, relative: str, stamp: str) -> None:
        self.folder, self.relative = folder, relative
        self._key = (folder.uri, relative, stamp)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Address) and other._key == self._key


@lru_cache(maxsize=2)
def _opened(address: _Address) -> LargeHdf5:
    return LargeHdf5(address.folder, address.relative)


# HDF5 closes what is still open when the process ends, and asks for bytes when no Python is left: a crash.
atexit.register(_opened.cache_clear)


class _Pieces(io.RawIOBase):
    """A file of a folder as a seekable stream; remembers why reading failed."""

    def __init__(self, folder: Folder, relative: str) -> None:
        self._fs, self._path = folder.fs, folder.path_of(relative)
        self._size = int(persistently("read", self._path, partial(self._fs.size, self._path)))
        self._position = 0
        self.failure: StorageFailed | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, without reading."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        fetch = partial(self._fs.cat_file, self._path, start=self._position, end=end)
        try:
            data = persistently("read", self._path, fetch)
        except StorageFailed as error:
            self.failure = error
            raise
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
