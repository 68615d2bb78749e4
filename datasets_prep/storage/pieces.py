"""A large file read piece by piece, for libraries that want an open file."""

import io
from typing import Any

from datasets_prep.storage.retries import StorageFailed, persistently


class FilePieces(io.RawIOBase):
    """The file at `path` of the fsspec file system `fs` as a seekable stream, read with retries.

    `failure` is why the last read failed, or None: some libraries hide a stream's errors.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path
        self._size = int(persistently("read", self._fs.size, self._path))
        self._position = 0
        self.failure: StorageFailed | None = None

    def readable(self) -> bool:
        """True: an `io.RawIOBase` says so."""
        return True

    def seekable(self) -> bool:
        """True: an `io.RawIOBase` says so."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from `whence`, without reading."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` up to the end of the file."""
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        try:
            data = persistently("read", self._fs.cat_file, self._path, start=self._position, end=end)
        except StorageFailed as error:
            self.failure = error
            raise
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
