"""What `dpt submit` sends: tracked files or installed packages, and what is named; nothing else."""

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipelines import submit
from pipelines.cluster.package import BadPackage, write_package
from pipelines.tracking.source_commit import tracked_files

SECRETS = (".env", ".aws/credentials", "id_rsa", "dpt/secret.key", "runs/weights.bin", "notes.txt")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with the packages, tests and secrets, and no repository yet."""
    tree = tmp_path / "tree"
    for name in ("dpt/model.py", "pipelines/configs/mix6.yaml", "tune/cli.py", "tests/test_it.py", *SECRETS):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    return tree


def git(tree: Path, *words: str) -> None:
    author = ["-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", "-C", tree, *author, *words], check=True, capture_output=True)


def track(tree: Path, *names: str) -> None:
    git(tree, "init", "-q")
    git(tree, "add", "--", *names)


def sent(tree: Path, *include: str) -> set[str]:
    write_package(tree, tracked_files(tree), tree, include, tree.parent / "package.zip")
    with zipfile.ZipFile(tree.parent / "package.zip") as archive:
        assert all(archive.read(name).decode() for name in archive.namelist())
        return set(archive.namelist())


def test_it_is_what_git_tracks_as_it_is_now(tree):
    track(tree, "dpt/model.py", "tune/cli.py", "tests/test_it.py", "pipelines")
    (tree / "dpt/model.py").write_text("changed")
    (tree / "tests/test_it.py").unlink()
    assert sent(tree) == {"dpt/model.py", "tune/cli.py", "pipelines/configs/mix6.yaml"}
    with zipfile.ZipFile(tree.parent / "package.zip") as archive:
        assert archive.read("dpt/model.py") == b"changed"


def test_files_of_the_users_folder_go_with_installed_packages(tree, tmp_path):
    own = tmp_path / "own"
    (own / "mine").mkdir(parents=True)
    (own / "mine/robot[1].yaml").write_text("train: {}")
    (own / "other.yaml").write_text("x")
    write_package(tree, None, own, ["mine"], tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        assert archive.read("mine/robot[1].yaml") == b"train: {}"
        assert "dpt/model.py" in archive.namelist()
        assert "other.yaml" not in archive.namelist()


def test_installed_packages_go_alone(tree):
    (tree / "dpt/secret.key").unlink()
    (tree / "dpt/__pycache__").mkdir()
    (tree / "dpt/__pycache__/model.pyc").write_text("x")
    (tree / "torch").mkdir()
    (tree / "torch/huge.so").write_text("x")
    assert sent(tree) == {"dpt/model.py", "tune/cli.py", "pipelines/configs/mix6.yaml"}


def test_a_repository_around_the_tree_is_another_projects(tree):
    git(tree.parent, "init", "-q")
    git(tree.parent, "add", "tree/notes.txt")
    assert "notes.txt" not in sent(tree)


def test_what_is_named_goes_too(tree):
    track(tree, "dpt/model.py")
    assert sent(tree, "notes.txt", "runs", "pip*") == {
        "dpt/model.py", "notes.txt", "runs/weights.bin", "pipelines/configs/mix6.yaml",
    }  # fmt: skip
    for pattern in ("missing.yaml", "../elsewhere", str(tree / "notes.txt")):
        with pytest.raises(BadPackage, match=f"--include {pattern}: no such file"):
            sent(tree, pattern)


def test_links_lead_nowhere(tree):
    outside = tree.parent / "passwd"
    outside.write_text("root")
    (tree / "link").symlink_to(outside)
    (tree / "inside").symlink_to(tree / "id_rsa")
    (tree / "folder").symlink_to(tree / "runs")
    (tree / "broken").symlink_to(tree / "nowhere")
    track(tree, "dpt/model.py", "link", "inside", "broken")
    package = tree.parent / "package.zip"
    assert write_package(tree, tracked_files(tree), tree, ["folder"], package) == [
        "folder/weights.bin",
        "inside",
        "link",
    ]
    with zipfile.ZipFile(package) as archive:
        assert archive.namelist() == ["dpt/model.py"]


def test_data_are_refused_by_name(tree):
    noise = np.random.default_rng(0).integers(0, 256, 3 * 2**20, np.uint8)
    (tree / "runs/weights.bin").write_bytes(noise.tobytes())
    track(tree, "dpt/model.py")
    package, limit = tree.parent / "package.zip", 2 * 2**20
    said = r"packs to 3\.0 MiB, more than the 2 .* Largest: runs/weights\.bin \(3\.0 MiB\)"
    with pytest.raises(BadPackage, match=said):
        write_package(tree, tracked_files(tree), tree, ["runs"], package, limit)
    write_package(tree, tracked_files(tree), tree, [], package, limit)
    assert package.stat().st_size < 1000


def test_this_working_tree_is_small_and_always_the_same(tmp_path):
    first, again = tmp_path / "first.zip", tmp_path / "again.zip"
    for path in (first, again):
        assert write_package(submit.TREE, tracked_files(submit.TREE), submit.TREE, [], path) == []
    assert first.read_bytes() == again.read_bytes()
    assert first.stat().st_size < 1.5 * 2**20
    with zipfile.ZipFile(first) as archive:
        assert {"tune/cli.py", "pipelines/configs/mix6.yaml"} <= set(archive.namelist())
