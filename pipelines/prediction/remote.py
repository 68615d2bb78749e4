"""Inputs of `dpt predict` on object stores: files, folders and patterns such as `s3://bucket/photos/**/*.jpg`.

Their `Path` is the URI with one slash less (`s3:/bucket/a.jpg`), so that names follow as from any other path.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets_prep.errors import NotFound
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import persistently


def is_remote(argument: str) -> bool:
    """Whether `argument` is a URI, and no local file."""
    return "://" in argument and not Path(argument).exists()


def address(path: Path) -> str:
    """The URI whose `Path` is `path`."""
    protocol, _, rest = str(path).partition(":/")
    return f"{protocol}://{rest}"


def list_remote(uri: str) -> tuple[list[Path], bool]:
    """The files that `uri` names, sorted, and whether it is itself one.

    Raises:
        NotFound: if there is no such file or folder, and it is not a pattern.
    """
    folder = Folder(uri)
    if folder.has_file():
        return [Path(uri)], True
    if folder.exists():
        return [Path(f"{folder.uri}/{name}") for name in folder.files()], False
    if not glob.has_magic(uri):
        raise NotFound(f"no such image: {uri}")
    matches = persistently("listed", folder.fs.glob, folder.path, detail=True)
    inside = [
        folder.fs.find(path) if info["type"] == "directory" else [path] for path, info in matches.items()
    ]
    return sorted({Path(folder.fs.unstrip_protocol(path)) for paths in inside for path in paths}), False


def read_remote(path: Path) -> bytes:
    """The content of the remote file at `path`."""
    return Folder(address(path.parent)).read_bytes(path.name)


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """A local copy of the remote file at `path`, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="dpt-input-") as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(read_remote(path))
        yield copy
