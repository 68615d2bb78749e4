"""What goes with a job to a cluster: the code that git tracks, or the installed packages, and what is named.

A working tree also holds keys, data, and links to anywhere: nothing is taken because it lies there.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from datasets_prep.errors import UserError

MOST_BYTES = 8 * 2**20
"""Of a package, which every node downloads: more must be data; the code is a tenth of it."""

_PACKAGES = ("datasets_prep", "dpt", "pipelines", "tune")
_SCRIPT = "dpt_on_ray.py"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


class BadPackage(UserError):
    """Files that cannot go with a job; the message names them."""


def write_package(
    tree: Path,
    tracked: Sequence[str] | None,
    base: Path,
    include: Sequence[str],
    path: Path,
    most_bytes: int = MOST_BYTES,
) -> list[str]:
    """Zip what a job needs of a working `tree`; the package is a pure function of the files.

    Args:
        tree: root of a repository, or the folder that the packages are installed in.
        tracked: files that git tracks in `tree`; None for those of the packages.
        base: the user's folder; a job's working directory is the package, where the same names are found.
        include: further files and folders, as patterns relative to `base`.
        path: of the zip file.
        most_bytes: that it may have.

    Returns:
        Links, which are left out since they may lead anywhere.

    Raises:
        BadPackage: if a pattern matches nothing inside `base`, or the package is too large.
    """
    packages = (name for package in _PACKAGES for name in _inside(tree, package))
    files = dict.fromkeys((*packages, _SCRIPT) if tracked is None else tracked, tree)
    for pattern in include:
        files |= dict.fromkeys(_included(base, pattern), base)
    found = sorted(name for name, root in files.items() if (root / name).is_file())
    # Also a file in a folder that is a link.
    links = [name for name in found if (files[name] / name).resolve() != files[name].resolve() / name]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in found:
            if name not in links:
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, (files[name] / name).read_bytes())
        largest = sorted(archive.infolist(), key=lambda file: -file.compress_size)[:3]
    size = path.stat().st_size
    if size > most_bytes:
        named = ", ".join(f"{file.filename} ({file.compress_size / 2**20:.1f} MiB)" for file in largest)
        raise BadPackage(
            f"{tree} packs to {size / 2**20:.1f} MiB, more than the {most_bytes / 2**20:.0f} that are sent "
            f"to every node: untrack what is not code, or put it on the cluster's storage. Largest: {named}"
        )
    return links


def _inside(tree: Path, folder: str) -> set[str]:
    """Files below a `folder` of the tree, but those that Python made of others."""
    paths = (path for path in (tree / folder).rglob("*") if "__pycache__" not in path.parts)
    return {path.relative_to(tree).as_posix() for path in paths}


def _included(base: Path, pattern: str) -> set[str]:
    """Files that a `pattern` names, and those in folders that it names."""
    inside = is_below(pattern) and pattern
    matches = [path.relative_to(base).as_posix() for path in base.glob(pattern)] if inside else []
    if not matches:
        raise BadPackage(f"--include {pattern}: no such file or folder in {base}")
    return {name for match in matches for name in ({match} | _inside(base, match))}


def is_below(path: str) -> bool:
    """Whether a relative `path` stays in its folder."""
    return not Path(path).is_absolute() and ".." not in Path(path).parts
