"""What the tests of the readers share: files typed by hand, and the samples found among them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets_prep.storage.folder import Folder


def put(root: Path, files: Mapping[str, bytes]) -> Folder:
    """Write files by path below `root`."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return Folder(root)


def read_first(source: Any, root: Path | Folder) -> Any:
    """Read the first sample that the source finds."""
    folder = root if isinstance(root, Folder) else Folder(root)
    return source.read(folder, next(iter(source.list(folder).samples)))


def good_samples(source: Any, tree: Any) -> list[Any]:
    """The samples of a written tree without its traps."""
    return [sample for sample in source.list(tree.root).samples if sample.sample_id not in tree.traps]


def left_out(source: Any, root: Path) -> list[str]:
    """The reasons why no file below `root` is a sample."""
    listing = source.list(Folder(root))
    assert not listing.samples
    return [rejection.reason for rejection in listing.rejected]
