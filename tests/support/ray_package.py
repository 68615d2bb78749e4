"""What `ray job submit --working-dir` uploads."""

from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env import packaging


def zip_working_directory(folder: Path, path: Path) -> None:
    """Write the zip file at `path` that Ray would upload as working directory `folder`, uncompressed.

    What `.gitignore` and `.rayignore` name, and what Ray leaves out by default, is not in it.
    """
    excludes = get_runtime_env_default_excludes()
    packaging.create_package(str(folder), path, include_gitignore=True, excludes=excludes)
