"""The one way in which every command writes files: whole or not at all, with one line where that fails.

A file is written beside its place under another name, flushed to disk and renamed; a folder likewise.
"""

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets_prep.errors import UserError
from datasets_prep.storage.retries import CannotWrite, StorageFailed

PARTIAL_MARK = ".partial-"
"""Part of the name of every local file or folder that is still being written, and of no finished one."""

_WAYS_OUT = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "make room there, then run the command again",
    (errno.EACCES, errno.EPERM, errno.EROFS): "allow it, or choose another place",
    (errno.EEXIST, errno.ENOTDIR, errno.EISDIR): "expected a folder; choose another place",
    (errno.ENOENT,): "create the bucket or folder, or choose another place",
}
_ERRNO = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
"""Object stores' libraries raise these without a number."""


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Raise StorageFailed, with cause and way out, for a system's error in a block that writes `where`.

    It is CannotWrite if no other attempt can succeed. An error that names another file passes: the block may
    also read.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        # Of a copy that fails the second is the new file.
        written = error.filename2 or error.filename or where
        named, place = (os.path.abspath(os.fsdecode(name)) for name in (written, where))
        if not (named.startswith(place) or place.startswith(named)):
            raise
        number = error.errno or _ERRNO.get(type(error))
        reason = os.strerror(error.errno) if error.errno else " ".join((error.strerror or str(error)).split())
        ways = [way for numbers, way in _WAYS_OUT.items() if number in numbers]
        kind = CannotWrite if ways and number != errno.ENOENT else StorageFailed
        raise kind("; ".join([f"{where} cannot be written: {reason}", *ways])) from error


@contextmanager
def writing_file(final: str | Path) -> Iterator[Path]:
    """A path to write to; when the block ends the file appears as `final`, whole, instead of one there.

    If the block raises, nothing changes. Raises StorageFailed if it cannot be written.
    """
    with explained(os.fspath(final)), partial_file(os.fspath(final)) as partial:
        yield partial
        # Durable before the rename makes it visible: no empty file after a power failure.
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, final)


@contextmanager
def creating(final: Path) -> Iterator[Path]:
    """A path of the same name, for a file or folder, that appears as `final` when the block ends.

    `final` must not exist. If the block raises, nothing appears. Raises StorageFailed as `writing_file`.
    """
    with explained(str(final)):
        final.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{final.name}{PARTIAL_MARK}", dir=final.parent) as scratch:
            yield Path(scratch) / final.name
            os.rename(Path(scratch) / final.name, final)  # fails if files have been put there meanwhile


@contextmanager
def partial_file(final: str) -> Iterator[Path]:
    """A new file beside `final`, locked while the block runs.

    The kernel releases the lock of a process that dies for any reason, so a partial file that can be locked
    is abandoned.
    """
    with explained(final):
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


def remove_if_abandoned(path: Path) -> bool:
    """Remove a partial file at `path` unless a running process writes it; returns whether it was removed."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # gone meanwhile, or a folder
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except OSError:  # a running process is writing it
        return False
    finally:
        os.close(descriptor)
