"""Folders anywhere fsspec reaches: a local disk, `s3://`, `gs://`, `memory://`.

Three promises live here. A raw dataset is listed once and read by relative path, so that a source never
cares where its files are. A file that is written appears whole or not at all: readers may trust any name they
see. And what storage fails to do is told apart from what is not there (`datasets_prep.storage.retries`).

S3 is found, and proven to it who we are, as with every other tool: `AWS_ENDPOINT_URL`, `AWS_REGION`,
`AWS_PROFILE` or the machine's role.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
from fsspec.implementations.local import LocalFileSystem

from datasets_prep.errors import UserError
from datasets_prep.storage.listing import FileListing, list_files
from datasets_prep.storage.retries import StorageFailed, persistently

PARTIAL_MARK = ".partial-"
"""Part of the name of every local file that is still being written; never a finished file's."""

_OPTIONS = {"s3": {"max_concurrency": 2}, "s3a": {"max_concurrency": 2}}
"""File systems' own settings. Parts of an upload wait in memory, 50 MB each: two at a time are enough."""


class Folder:
    """A folder on any fsspec file system, local or remote.

    Args:
        uri: a path (`data/raw`, made absolute) or a URI (`s3://bucket/raw`).

    Raises:
        UserError: if nothing is installed that reads such URIs.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        text = os.fspath(uri)
        # Other processes write where we look: what fsspec remembers of a folder would be old.
        options = {"use_listings_cache": False, **_OPTIONS.get(text.partition("://")[0], {})}
        try:
            self.fs, path = fsspec.core.url_to_fs(text, **(options if "://" in text else {}))
        except (ImportError, ValueError) as error:
            raise UserError(f"{text}: {error}") from error
        self.path = path.rstrip("/") or "/"
        self._files: FileListing | None = None

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
        path = self.path_of(relative)
        return bool(persistently("found", path, partial(self.fs.exists, path)))

    def files(self) -> FileListing:
        """Every file below the folder: relative path → size in bytes, sorted by path.

        Listed once and remembered: a listing of a million objects takes minutes on an object store.

        Raises:
            StorageFailed: if storage does not answer.
        """
        if self._files is None:
            self._files = list_files(self.fs, self.path)
        return self._files

    def with_files(self, files: FileListing) -> Folder:
        """The same folder, believed to hold these files."""
        known = self / "."
        known._files = files
        return known

    def children(self) -> list[str]:
        """The names directly inside the folder, sorted; empty if it does not exist."""
        return persistently("listed", self.path, self._children)

    def _children(self) -> list[str]:
        if not self.fs.isdir(self.path):
            return []
        return sorted(posixpath.basename(p.rstrip("/")) for p in self.fs.ls(self.path, detail=False))

    def read_bytes(self, relative: str, most: int | None = None) -> bytes:
        """A file's whole content.

        Args:
            most: refuse a file of more bytes. It costs a request; samples' sizes are known from the listing.

        Raises:
            UserError: if the file is larger than `most`.
            FileNotFoundError, IsADirectoryError, PermissionError: if the file is not to be had.
            StorageFailed: if it may be, but storage fails. So may it if a remote store lets nobody in:
                credentials end in the middle of a job.
        """
        path = self.path_of(relative)
        try:
            if most is not None and (size := persistently("read", path, partial(self.fs.size, path))) > most:
                raise UserError(f"{path} has {size} bytes, expected at most {most}")
            return bytes(persistently("read", path, partial(self.fs.cat_file, path)))
        except PermissionError as error:
            if self.is_local:
                raise
            raise StorageFailed(f"{path} cannot be read: {type(error).__name__}: {error}") from error

    def read_text(self, relative: str, most: int | None = None) -> str:
        """A file's whole content as UTF-8 (a leading byte-order mark is dropped); `most` as `read_bytes`."""
        return self.read_bytes(relative, most).decode("utf-8-sig")

    def note_read(self, content: bytes) -> None:
        """Tell a folder that keeps account what was read by other means: a piece of a large file."""

    @contextmanager
    def writing(self, relative: str) -> Iterator[Path]:
        """A local path to write to; on leaving the block the file appears under its name, whole.

        Local folders: written beside its place, flushed to disk and renamed. Remote ones: written to a
        temporary file and uploaded, which object stores make visible in one step. If the block raises,
        nothing appears.

        Raises:
            StorageFailed: if the upload fails.
        """
        final = self.path_of(relative)
        if self.is_local:
            with _partial_file(final) as partial_path:
                yield partial_path
                _flush_to_disk(partial_path)
                os.replace(partial_path, final)
            return
        with TemporaryDirectory(prefix="dpt-write-") as scratch:
            local = Path(scratch) / posixpath.basename(final)
            yield local
            persistently("written", final, partial(self.fs.put_file, str(local), final))

    def write_text(self, relative: str, text: str) -> None:
        """Write a small UTF-8 file, whole or not at all."""
        with self.writing(relative) as path:
            path.write_text(text, encoding="utf-8")

    def remove_partial_files(self) -> int:
        """Remove what killed processes left half-written (local folders only); returns how many files.

        A file that a living process is writing stays, whichever job it belongs to.
        """
        if not self.is_local or not self.exists():
            return 0
        return sum(_remove_if_abandoned(path) for path in Path(self.path).rglob(f"*{PARTIAL_MARK}*"))


class DigestingFolder(Folder):
    """A folder that remembers, as one SHA-256, what was read from it: the provenance of a sample."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        super().__init__(uri)
        self._state = hashlib.sha256()

    def read_bytes(self, relative: str, most: int | None = None) -> bytes:
        """A file's whole content, which also goes into the digest (preceded by its length)."""
        content = super().read_bytes(relative, most)
        self.note_read(content)
        return content

    def note_read(self, content: bytes) -> None:
        """Take it into the digest like a file of that content."""
        self._state.update(len(content).to_bytes(8, "little"))
        self._state.update(content)

    def take_digest(self) -> str:
        """The digest of everything read since the last call, in hexadecimal."""
        digest = self._state.hexdigest()
        self._state = hashlib.sha256()
        return digest


@contextmanager
def _partial_file(final: str) -> Iterator[Path]:
    """A new file beside `final`, locked as long as the block runs.

    The kernel takes the lock from a process that dies, however it does: a partial file that can be locked is
    one that nobody is writing.
    """
    path, descriptor = _locked_new_file(final)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked_new_file(final: str) -> tuple[Path, int]:
    while True:
        path = Path(f"{final}{PARTIAL_MARK}{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        with suppress(OSError):  # file systems without locks: nobody will find the file abandoned either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # taken for abandoned between making and locking it


def _remove_if_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except OSError:  # somebody is writing it
        return False
    finally:
        os.close(descriptor)


def _flush_to_disk(path: Path) -> None:
    """Make the content durable before the rename makes it visible: no hollow file after a power cut."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
