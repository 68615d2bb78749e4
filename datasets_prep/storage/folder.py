"""Folders on any fsspec file system: a local disk, `s3://`, `gs://`, `memory://`.

A raw dataset is listed once and read by relative path, so that a source need not know where its files are. A
written file appears whole or not at all, so readers may trust any name they see. A storage failure is told
apart from a missing file (`datasets_prep.storage.retries`).

A zip or tar archive is read in place (`datasets_prep.storage.archives`).

The endpoint and credentials of S3 come from the AWS environment: `AWS_ENDPOINT_URL`, `AWS_REGION`,
`AWS_PROFILE` or the machine's role.
"""

import fcntl
import hashlib
import os
import posixpath
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from datasets_prep.errors import NotFound, UserError
from datasets_prep.storage.archives import archive_uri, damage_of_a_file, open_archive
from datasets_prep.storage.listing import FileListing, list_files
from datasets_prep.storage.retries import StorageFailed, persistently

PARTIAL_MARK = ".partial-"
"""Part of the name of every local file that is still being written, and of no finished file."""

_CHAINED = re.compile(r"(?:zip|tar)://.*?::")
_OPTIONS = {"s3": {"max_concurrency": 2}, "s3a": {"max_concurrency": 2}}
"""Options by protocol. Parts of an upload wait in memory, 50 MB each: two at a time are enough."""


class Folder:
    """A folder on any fsspec file system, local or remote.

    Args:
        uri: a path (`data/raw`, made absolute), a URI (`s3://bucket/raw`) or one of a folder in an archive
            (`zip://raw::s3://bucket/raw.zip`).

    Raises:
        UserError: if no installed file system reads such URIs, or the archive is damaged.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        text = os.fspath(uri)
        inside, chained, self._archive = text.partition("::") if _CHAINED.match(text) else (text, "", "")
        outer = self._archive or text
        # Other processes write to the same folders: fsspec's cached listings would be stale.
        options = {"use_listings_cache": False, **_OPTIONS.get(outer.partition("://")[0], {})}
        try:
            self.fs, path = fsspec.core.url_to_fs(outer, **(options if "://" in outer else {}))
        except (ImportError, ValueError) as error:
            raise UserError(f"{text}: {error}") from error
        self.path = path.rstrip("/") or "/"
        if chained:
            kind, _, path = inside.partition("://")
            self.fs, self.path = open_archive(kind, self.fs, self.path), path.strip("/")
        self._files: FileListing | None = None

    @property
    def uri(self) -> str:
        """The folder's address: an absolute path when local, else a URI with its protocol."""
        if self._archive:
            return f"{self.fs.protocol}://{self.path}::{self._archive}"
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's disks."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def in_archive(self) -> bool:
        """Whether the folder lies in a zip or tar archive."""
        return bool(self._archive)

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __truediv__(self, relative: str) -> "Folder":
        child = object.__new__(Folder)
        child.fs, child.path, child._files = self.fs, self.path_of(relative), None
        child._archive = self._archive
        return child

    def path_of(self, relative: str) -> str:
        """The file system's path of the path `relative` to the folder.

        Raises UserError if `relative` is absolute or leads out of the folder; list files are user input.
        """
        normal = posixpath.normpath(relative)
        if relative.startswith("/") or normal == ".." or normal.startswith("../"):
            raise UserError(f"{relative!r} points outside {self.uri}")
        return self.path if normal == "." else posixpath.join(self.path, normal)

    def exists(self, relative: str = ".") -> bool:
        """Whether the file or folder `relative` exists."""
        return bool(persistently("found", self.fs.exists, self.path_of(relative)))

    def has_file(self, relative: str) -> bool:
        """Whether `relative` exists and is a file: no folder, pipe or device."""
        return bool(persistently("found", self.fs.isfile, self.path_of(relative)))

    def files(self) -> FileListing:
        """Every file below the folder: relative path → size in bytes, sorted by path.

        The listing is cached: for a million objects it takes minutes on an object store. Raises StorageFailed
        if storage does not answer.
        """
        if self._files is None:
            self._files = list_files(self.fs, self.path)
        return self._files

    def with_files(self, files: FileListing) -> "Folder":
        """The same folder with `files` as its cached listing."""
        known = self / "."
        known._files = files
        return known

    def children(self) -> list[str]:
        """Names directly inside the folder, sorted; empty if it does not exist."""
        return persistently("listed", self._children, self.path)

    def _children(self, path: str) -> list[str]:
        if not self.fs.isdir(path):
            return []
        return sorted(posixpath.basename(p.rstrip("/")) for p in self.fs.ls(path, detail=False))

    def read_bytes(self, relative: str, most: int | None = None) -> bytes:
        """A file's whole content.

        Args:
            relative: path in the folder.
            most: refuse a file of more bytes. It costs a request; samples' sizes are known from the listing.

        Raises:
            UserError: if the file is larger than `most`.
            BadSample: if the file lies in an archive and is damaged there.
            FileNotFoundError, IsADirectoryError, PermissionError: if the file cannot be opened.
            StorageFailed: if storage fails; also if a remote store denies access, because credentials may
                expire in the middle of a job.
        """
        path = self.path_of(relative)
        try:
            if most is not None and (size := persistently("read", self.fs.size, path)) > most:
                raise UserError(f"{path} has {size} bytes, expected at most {most}")
            if self._archive:
                with damage_of_a_file(path):
                    return bytes(self.fs.cat_file(path))
            return bytes(persistently("read", self.fs.cat_file, path))
        except PermissionError as error:
            if self.is_local:
                raise
            raise StorageFailed(f"{path} cannot be read: {type(error).__name__}: {error}") from error

    def open(self, relative: str) -> BinaryIO:
        """The file `relative`, open for reading at any position."""
        file: BinaryIO = self.fs.open(self.path_of(relative), "rb")
        return file

    def read_text(self, relative: str, most: int | None = None) -> str:
        """The content of `relative` as UTF-8, without a byte-order mark; `most` as in `read_bytes`."""
        return self.read_bytes(relative, most).decode("utf-8-sig")

    def note_read(self, content: bytes) -> None:
        """Note `content` that was read by other means (a piece of a large file); see `DigestingFolder`."""

    @contextmanager
    def writing(self, relative: str) -> Iterator[Path]:
        """A local path to write to; when the block ends the file appears as `relative`, whole.

        Local folders: written beside its final path, flushed to disk and renamed. Remote folders: written to
        a temporary file and uploaded, which object stores make visible atomically. If the block raises,
        nothing appears. Raises StorageFailed if the upload fails.
        """
        final = self.path_of(relative)
        if self.is_local:
            with _partial_file(final) as partial_path:
                yield partial_path
                # Durable before the rename makes it visible: no empty file after a power failure.
                with open(partial_path, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(partial_path, final)
            return
        with TemporaryDirectory(prefix="dpt-write-") as scratch:
            local = Path(scratch) / posixpath.basename(final)
            yield local
            persistently("written", lambda path: self.fs.put_file(str(local), path), final)

    def write_text(self, relative: str, text: str) -> None:
        """Write `text` to the UTF-8 file `relative`, whole or not at all."""
        with self.writing(relative) as path:
            path.write_text(text, encoding="utf-8")

    def create_text(self, relative: str, text: str) -> bool:
        """Write `text` to `relative` unless there is such a file; of several writers one succeeds: True."""
        final = self.path_of(relative)
        try:
            if self.is_local:
                with _partial_file(final) as path:
                    path.write_text(text, encoding="utf-8")
                    _name_exclusively(path, final)
            else:
                self.fs.pipe_file(final, text.encode(), mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            if self.is_local:
                raise
            raise StorageFailed(f"{final} cannot be written: {type(error).__name__}: {error}") from error
        return True

    def remove(self, relative: str) -> None:
        """Remove the file `relative`; it may be gone already."""
        with suppress(FileNotFoundError):
            persistently("removed", self.fs.rm_file, self.path_of(relative))

    def update_text(self, relative: str, text: str) -> None:
        """Write `text` to `relative`, unless that is its content already."""
        if not self.exists(relative) or self.read_text(relative) != text:
            self.write_text(relative, text)

    def remove_partial_files(self) -> int:
        """Remove partial files of killed processes (local folders only); returns how many.

        A file that a running process is writing stays, whichever job it belongs to.
        """
        if not self.is_local or not self.exists():
            return 0
        return sum(_remove_if_abandoned(path) for path in Path(self.path).rglob(f"*{PARTIAL_MARK}*"))


def existing_folder(uri: str) -> Folder:
    """The folder or the root of the archive at the path or URI `uri`.

    Raises NotFound if it does not exist; UserError if it is another file, or a damaged archive.
    """
    folder = Folder(uri)
    if not folder.exists():
        raise NotFound(f"no such folder: {uri}")
    if archive := archive_uri(folder.fs, folder.path, folder.uri):
        root = Folder(archive)
        if not root.children():
            raise UserError(f"{uri} is an archive without files")
        # `tar cf raw.tar .` puts a folder `.` around all.
        return Folder(archive.replace("://", "://.", 1)) if root.children() == ["."] else root
    if (folder.is_local and not folder.fs.isdir(folder.path)) or folder.fs.isfile(folder.path):
        raise UserError(
            f"{uri} is a file; expected a folder, or an archive: .zip, .tar, .tar.gz, .tar.bz2, .tar.xz"
        )
    return folder


class DigestingFolder(Folder):
    """The `Folder` at `uri`; keeps a SHA-256 of all that is read from it: the provenance of a sample."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        super().__init__(uri)
        self._state = hashlib.sha256()

    def read_bytes(self, relative: str, most: int | None = None) -> bytes:
        """As `Folder.read_bytes`; the content also goes into the digest, preceded by its length."""
        content = super().read_bytes(relative, most)
        self.note_read(content)
        return content

    def note_read(self, content: bytes) -> None:
        """Add `content` to the digest like a file of that content."""
        self._state.update(len(content).to_bytes(8, "little"))
        self._state.update(content)

    def take_digest(self) -> str:
        """The hexadecimal digest of everything read since the last call."""
        digest = self._state.hexdigest()
        self._state = hashlib.sha256()
        return digest


@contextmanager
def _partial_file(final: str) -> Iterator[Path]:
    """A new file beside `final`, locked while the block runs.

    The kernel releases the lock of a process that dies for any reason, so a partial file that can be locked
    is abandoned.
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
        with suppress(OSError):  # no locks on this file system: then no process can find the file abandoned
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # removed as abandoned between creating and locking it


def _name_exclusively(path: Path, final: str) -> None:
    """Give the file at `path` the name `final` too; raises FileExistsError if another file has it."""
    try:
        os.link(path, final)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system: then readers may see the file half-written
        with open(final, "x", encoding="utf-8") as file:
            file.write(path.read_text(encoding="utf-8"))


def _remove_if_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except OSError:  # a running process is writing it
        return False
    finally:
        os.close(descriptor)
