"""The commit that this code is of, whether it was changed since, and which files are in it.

A job on a cluster has no repository: `dpt submit` gives it the submitter's commit in `COMMIT_VARIABLE`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

COMMIT_VARIABLE = "DPT_GIT_COMMIT"
UNKNOWN = "unknown"
_TREE = Path(__file__).parents[2]


def source_commit(tree: Path = _TREE) -> str:
    """Commit of the repository whose root is `tree`, with `-dirty` if a tracked file differs from it.

    Without such a repository the value of `COMMIT_VARIABLE`, else `UNKNOWN`. A repository that merely
    contains the tree, such as one with this package in its virtual environment, is another project's.
    """
    if not _is_repository(tree):
        return os.environ.get(COMMIT_VARIABLE, UNKNOWN)
    commit = _git(tree, "rev-parse", "HEAD") or UNKNOWN
    return f"{commit}-dirty" if _git(tree, "status", "--porcelain", "--untracked-files=no") else commit


def tracked_files(tree: Path) -> list[str] | None:
    """Paths of what git tracks in the repository whose root is `tree`; None without such a repository."""
    listed = _git(tree, "ls-files", "-z") if _is_repository(tree) else None
    return None if listed is None else [name for name in listed.split("\0") if name]


def short(commit: str) -> str:
    """`commit` with eight digits: `a1b2c3d4`, `a1b2c3d4-dirty`."""
    digits, dash, dirty = commit.partition("-")
    return digits[:8] + dash + dirty


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
