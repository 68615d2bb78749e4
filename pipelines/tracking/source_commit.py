"""The commit that this code is of, whether it was changed since, and which files are in it.

A job on a cluster has no repository: `dpt submit` gives it the submitter's commit in `COMMIT_VARIABLE`, and
`ray job submit` may in its metadata. Without either the digest of the uploaded code tells versions apart.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from pipelines.cluster.ray_private import job_metadata, job_package

COMMIT_VARIABLE = "DPT_GIT_COMMIT"
COMMIT_METADATA = "git_commit"
"""Key of `ray job submit --metadata-json`."""

UNKNOWN, DIRTY = "unknown", "-dirty"
_TREE = Path(__file__).parents[2]


def source_commit(tree: Path = _TREE) -> str:
    """Commit of the repository whose root is `tree`, with `-dirty` if a tracked file differs from it.

    Without such a repository the value of `COMMIT_VARIABLE`; in a job that of `COMMIT_METADATA`, else the
    name of the zip file that its code is of, with the digest of the files (`ray_pkg_2f9c…`); else `UNKNOWN`.
    A repository that merely contains the tree, such as one with this package in its virtual environment, is
    another project's.
    """
    if not _is_repository(tree):
        uploaded = Path(job_package() or UNKNOWN).stem.removeprefix("_")
        return os.environ.get(COMMIT_VARIABLE) or job_metadata().get(COMMIT_METADATA) or uploaded
    commit = _git(tree, "rev-parse", "HEAD") or UNKNOWN
    return f"{commit}{DIRTY}" if _git(tree, "status", "--porcelain", "--untracked-files=no") else commit


def tracked_files(tree: Path) -> list[str] | None:
    """Paths of what git tracks in the repository whose root is `tree`; None without such a repository."""
    listed = _git(tree, "ls-files", "-z") if _is_repository(tree) else None
    return None if listed is None else [name for name in listed.split("\0") if name]


def short(commit: str) -> str:
    """`commit` with eight digits: `a1b2c3d4`, `a1b2c3d4-dirty`, `ray_pkg_a1b2c3d4`."""
    return re.sub(r"(?<![0-9a-f])([0-9a-f]{8})[0-9a-f]+", r"\1", commit)


def _is_repository(tree: Path) -> bool:
    root = _git(tree, "rev-parse", "--show-toplevel")
    return root is not None and Path(root) == tree.resolve()


def _git(tree: Path, *words: str) -> str | None:
    """What git prints about `tree`; None if it fails, or there is none."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "-C", str(tree), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
