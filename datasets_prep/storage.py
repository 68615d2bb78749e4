"""Folders anywhere fsspec reaches: a local disk, `s3://`, `gs://`, `memory://`.

Two promises live here. A raw dataset is listed once and read by relative path, so that a source never
cares where its files are. And a file that is written appears whole or not at all: readers may trust any
name they see.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

PARTIAL_MARK = ".partial-"
"""Part of the name of every local file that is still being written; never a finished file's."""


class Folder:
    """A folder on any fsspec file system, local or remote.

    Args:
        uri: a path (`data/raw`, made absolute) or a URI (`s3://bucket/raw`).
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.fs, path = fsspec.core.url_to_fs(os.fspath(uri))
        self.path = path.rstrip("/") or "/"
        self._files: dict[str, int] | None = None

    @property
    def uri(self) -> str:
        """The folder's address: a plain absolute path when local, else a URI with its protocol."""
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's disks."""
        return isinstance(self.fs, LocalFileSystem)

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __truediv__(self, relative: str) -> Folder:
        child = object.__new__(Folder)
        child.fs, child.path, child._files = self.fs, self.path_of(relative), None
        return child

    def path_of(self, relative: str) -> str:
        """The file system's own path of a relative path.

        Raises:
            ValueError: if `relative` is absolute or climbs out of the folder; list files are user input.
        """
        normal = posixpath.normpath(relative)
        if relative.startswith("/") or normal == ".." or normal.startswith("../"):
            raise ValueError(f"{relative!r} points outside {self.uri}")
        return self.path if normal == "." else posixpath.join(self.path, normal)

    def exists(self, relative: str = ".") -> bool:
        """Whether a file or folder of that name is there."""
        return bool(self.fs.exists(self.path_of(relative)))

    def files(self) -> dict[str, int]:
        """Every file below the folder: relative path → size in bytes, sorted by path.

        Listed once and remembered: a listing of a million objects takes minutes on an object store.
        """
        if self._files is None:
            found: dict[str, dict[str, Any]] = self.fs.find(self.path, detail=True)
            start = 1 if self.path == "/" else len(self.path) + 1
            self._files = {path[start:]: int(found[path]["size"]) for path in sorted(found)}
        return self._files

    def children(self) -> list[str]:
        """The names directly inside the folder, sorted; empty if it does not exist."""
        if not self.fs.isdir(self.path):
            return []
        return sorted(posixpath.basename(p.rstrip("/")) for p in self.fs.ls(self.path, detail=False))

    def read_bytes(self, relative: str) -> bytes:
        """A file's whole content."""
        return bytes(self.fs.cat_file(self.path_of(relative)))

    def read_text(self, relative: str) -> str:
        """A file's whole content as UTF-8 (a leading byte-order mark is dropped)."""
        return self.read_bytes(relative).decode("utf-8-sig")

    @contextmanager
    def writing(self, relative: str) -> Iterator[Path]:
        """A local path to write to; on leaving the block the file appears under its name, whole.

        Local folders: written beside its place, flushed to disk and renamed. Remote ones: written to a
        temporary file and uploaded, which object stores make visible in one step. If the block raises,
        nothing appears.
        """
        final = self.path_of(relative)
        if self.is_local:
            partial = Path(f"{final}{PARTIAL_MARK}{uuid.uuid4().hex}")
            partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield partial
                _flush_to_disk(partial)
                os.replace(partial, final)
            finally:
                partial.unlink(missing_ok=True)
            return
        with TemporaryDirectory(prefix="dpt-write-") as scratch:
            local = Path(scratch) / posixpath.basename(final)
            yield local
            self.fs.put_file(str(local), final)

    def write_text(self, relative: str, text: str) -> None:
        """Write a small UTF-8 file, whole or not at all."""
        with self.writing(relative) as path:
            path.write_text(text, encoding="utf-8")

    def remove_partial_files(self) -> int:
        """Remove what a killed process left half-written (local folders only); returns how many files."""
        if not self.is_local or not self.exists():
            return 0
        stale = [path for path in Path(self.path).rglob(f"*{PARTIAL_MARK}*") if path.is_file()]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)


class DigestingFolder(Folder):
    """A folder that remembers, as one SHA-256, what was read from it: the provenance of a sample."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        super().__init__(uri)
        self._state = hashlib.sha256()

    def read_bytes(self, relative: str) -> bytes:
        """A file's whole content, which also goes into the digest (preceded by its length)."""
        content = super().read_bytes(relative)
        self._state.update(len(content).to_bytes(8, "little"))
        self._state.update(content)
        return content

    def take_digest(self) -> str:
        """The digest of everything read since the last call, in hexadecimal."""
        digest = self._state.hexdigest()
        self._state = hashlib.sha256()
        return digest


def _flush_to_disk(path: Path) -> None:
    """Make the content durable before the rename makes it visible: no hollow file after a power cut."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
