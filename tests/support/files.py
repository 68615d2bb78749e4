"""What lies in a folder after a job, killed or whole."""

from pathlib import Path

from datasets_prep.manifest import LATEST_NAME, MANIFEST_NAME
from datasets_prep.storage.writing import PARTIAL_MARK


def contents(root: Path) -> dict[str, bytes]:
    """Relative path → bytes of every file."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Files of `found`, but half-written ones, that are not what is expected."""
    return [name for name in found if PARTIAL_MARK not in name and found[name] != expected.get(name)]


def check_only_whole_files(left: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Whatever bears its final name is whole, and the manifest comes after all that it names."""
    assert differing(left, expected) == []
    finished = {name for name in left if PARTIAL_MARK not in name}
    if any(name.endswith(MANIFEST_NAME) for name in finished):
        assert {Path(name).name for name in set(expected) - finished} <= {LATEST_NAME}
