"""Folders on any fsspec file system: a local disk, `s3://`, `gs://`, `abfs://`, `memory://`.

A raw dataset is listed once and read by relative path, so that a source need not know where its files are. A
written file appears whole or not at all, so readers may trust any name they see. A storage failure is told
apart from a missing file (`datasets_prep.storage.retries`).

A zip or tar archive is read in place (`datasets_prep.storage.archives`).

Endpoint and credentials come from the environment: of S3 from `AWS_ENDPOINT_URL`, `AWS_REGION`,
`AWS_PROFILE` or the machine's role; of Google's storage from `GOOGLE_APPLICATION_CREDENTIALS` or the machine;
of Azure's from `AZURE_STORAGE_ACCOUNT_NAME` (or the URI) with `AZURE_STORAGE_ACCOUNT_KEY`,
`AZURE_STORAGE_SAS_TOKEN` or the machine's identity.
"""

import codecs
import hashlib
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from fsspec.implementations.local import LocalFileSystem

from datasets_prep.errors import NotFound, UserError
from datasets_prep.storage.archives import archive_uri, damage_of_a_file, open_archive
from datasets_prep.storage.contact import opened
from datasets_prep.storage.listing import FileListing, list_files
from datasets_prep.storage.retries import StorageFailed, persistently
from datasets_prep.storage.writing import (
    PARTIAL_MARK,
    explained,
    partial_file,
    remove_if_abandoned,
    writing_file,
)

_TRIAL = ".can-dpt-write-here"
_CHAINED = re.compile(r"(?:zip|tar)://.*?::")
_PASSWORD = re.compile(r"://[^/\s@]*:\S*@")
_OPTIONS = {"s3": {"max_concurrency": 2}, "s3a": {"max_concurrency": 2}}
"""Options by protocol. Parts of an upload wait in memory, 50 MB each: two at a time are enough."""

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
"""Protocol → the extra of this project that has its client library."""

_WITH_ACCOUNT = re.compile(r"(abfss?://[^/@]+@[^/]+)")
"""Start of an address of Azure whose account is not in the path that fsspec makes of it."""


class Folder:
    """A folder on any fsspec file system, local or remote.

    Args:
        uri: a path (`data/raw`, made absolute), a URI (`s3://bucket/raw`) or one of a folder in an archive
            (`zip://raw::s3://bucket/raw.zip`).

    Raises:
        UserError: if no installed file system reads such URIs, it has a password, or the archive is damaged;
            of a command also if the storage does not answer.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        text = os.fspath(uri)
        inside, chained, self._archive = text.partition("::") if _CHAINED.match(text) else (text, "", "")
        outer = self._archive or text
        if _PASSWORD.search(outer):
            raise UserError(
                f"{_PASSWORD.sub('://…@', outer)}: paths are printed and stored, so none may have a password "
                "or key; give it by the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        # Other processes write to the same folders: fsspec's cached listings would be stale.
        options = {"use_listings_cache": False, **_OPTIONS.get(outer.partition("://")[0], {})}
        try:
            self.fs, path = opened(outer, options if "://" in outer else {})
        except StorageFailed:
            raise
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(outer.partition("://")[0]) if isinstance(error, ImportError) else None
            way_out = f"{error}; pip install 'dpt-on-ray[{extra}]'" if extra else error
            raise UserError(f"{text}: {way_out}") from error
        account = _WITH_ACCOUNT.match(outer)
        self._container = account[1] if account else ""
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
        if self._container:
            return "/".join([self._container, *self.path.split("/")[1:]])
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
        child._archive, child._container = self._archive, self._container
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

    def has_file(self, relative: str = ".") -> bool:
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
            raise StorageFailed(f"{path} cannot be read: {type(error).__name__}: {error.strerror}") from error

    def open(self, relative: str) -> BinaryIO:
        """The file `relative`, open for reading at any position."""
        file: BinaryIO = self.fs.open(self.path_of(relative), "rb")
        return file

    def read_text(self, relative: str, most: int | None = None) -> str:
        """The text in `relative`, see `text_of`; `most` and errors as in `read_bytes`."""
        return text_of(self.read_bytes(relative, most), f"{self.uri}/{relative}")

    def note_read(self, content: bytes) -> None:
        """Note `content` that was read by other means (a piece of a large file); see `DigestingFolder`."""

    @contextmanager
    def writing(self, relative: str) -> Iterator[Path]:
        """A local path to write to; when the block ends the file appears as `relative`, whole.

        Local folders: see `writing_file`. Remote folders: written to a temporary file and uploaded, which
        object stores make visible atomically. If the block raises, nothing appears. Raises StorageFailed if
        it cannot be written.
        """
        final = self.path_of(relative)
        if self.is_local:
            with writing_file(final) as partial_path:
                yield partial_path
            return
        with TemporaryDirectory(prefix="dpt-write-") as scratch:
            local = Path(scratch) / posixpath.basename(final)
            with explained(str(local)):
                yield local
            self.upload(local, relative)

    def upload(self, local: Path, relative: str) -> None:
        """Upload the file `local` as `relative` of this remote folder. Raises StorageFailed."""
        final = self.path_of(relative)
        with explained(final):
            persistently("written", lambda path: self.fs.put_file(str(local), path), final)

    def write_text(self, relative: str, text: str) -> None:
        """Write `text` to the UTF-8 file `relative`, whole or not at all."""
        with self.writing(relative) as path:
            path.write_text(text, encoding="utf-8")

    def require_writable(self) -> None:
        """Raise StorageFailed if no file can be written here: before hours of work, not after them."""
        self.write_text(_TRIAL, _TRIAL * 100)
        self.remove(_TRIAL)

    def create_text(self, relative: str, text: str) -> bool:
        """Write `text` to `relative` unless there is such a file; of several writers one succeeds: True."""
        final = self.path_of(relative)
        if self.is_local:
            with explained(final), partial_file(final) as path:
                path.write_text(text, encoding="utf-8")
                return _named_exclusively(path, final)
        try:
            self.fs.pipe_file(final, text.encode(), mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            raise StorageFailed(f"{final} cannot be written: {type(error).__name__}: {error}") from error
        return True

    def remove(self, relative: str) -> None:
        """Remove the file `relative`; it may be gone already."""
        with suppress(FileNotFoundError):
            persistently("removed", self.fs.rm_file, self.path_of(relative))

    def update_text(self, relative: str, text: str) -> None:
        """Write `text` to `relative`, unless that is its content already."""
        if not self.exists(relative) or self.read_bytes(relative) != text.encode():
            self.write_text(relative, text)

    def remove_partial_files(self) -> int:
        """Remove partial files of killed processes (local folders only); returns how many.

        A file that a running process is writing stays, whichever job it belongs to.
        """
        if not self.is_local or not self.exists():
            return 0
        return sum(remove_if_abandoned(path) for path in Path(self.path).rglob(f"*{PARTIAL_MARK}*"))


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


def text_of(data: bytes, where: str) -> str:
    """The UTF-8 text `data`, or with a byte-order mark, which is not part of it, UTF-16.

    Raises UserError, naming the file as `where`, if it is neither.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
        if "\0" not in text:  # as UTF-16 without its mark, UTF-32 and pictures have
            return text
        start = data.find(b"\0")
    except UnicodeDecodeError as error:
        start = error.start
    line = data.count(b"\n", 0, start) + 1
    raise UserError(f"{where}: line {line} is not UTF-8; expected a text file saved in UTF-8")


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


def _named_exclusively(path: Path, final: str) -> bool:
    """Give the file at `path` the name `final` too; False if another file has it."""
    try:
        try:
            os.link(path, final)
        except FileExistsError:
            raise
        except OSError:  # no hard links on this file system: then readers may see the file half-written
            with open(final, "x", encoding="utf-8") as file:
                file.write(path.read_text(encoding="utf-8"))
    except FileExistsError:
        return False
    return True
