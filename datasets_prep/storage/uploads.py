"""Results that a command makes on this machine's disks, for a place that may be on an object store."""

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder


@contextmanager
def made_locally(uri: str, new: bool = False) -> Iterator[Path]:
    """A local path at which the block makes a file or a folder; when it ends, that is at `uri`.

    That is the path `uri` itself, or one in a temporary folder, of the same name, that is uploaded. If the
    block raises, nothing is uploaded. Raises UserError if `uri` is remote, `new` and exists;
    StorageFailed if it cannot be written.
    """
    folder = Folder(uri)
    if folder.is_local:
        yield Path(folder.path if "://" in uri else uri)
        return
    if new and folder.exists():
        raise UserError(f"{uri} exists; give a name that does not")
    with TemporaryDirectory(prefix="dpt-write-") as scratch:
        made = Path(scratch) / (posixpath.basename(folder.path) or "out")
        yield made
        for path in [made] if made.is_file() else sorted(made.rglob("*")):
            if path.is_file():
                folder.upload(path, path.relative_to(made).as_posix())


def require_local(path: str) -> Path:
    """The path of a folder that a command cannot make on an object store; raises UserError for a URI."""
    if "://" in path:
        raise UserError(f"{path}: expected a folder of this machine; upload it afterwards")
    return Path(path)
