"""What is published: the console script finds packages of others in the place of ours, and says which."""

import importlib.metadata
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dpt_on_ray
from tests.support.paths import REPOSITORY


def test_our_packages_do_not_clash():
    assert dpt_on_ray.clash() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_libraries_are_imported_is_one_line(number):
    meanwhile = f"d.clash = lambda: os.kill(os.getpid(), {int(number)})"
    code = f"import os, dpt_on_ray as d; {meanwhile}; d.main()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (128 + number, "")
    assert ended.stderr == f"dpt: stopped by {number.name}; nothing was begun\n"


@pytest.mark.parametrize("package", ["dpt", "tune", "pipelines"])
def test_a_package_earlier_on_the_path_is_named_before_it_is_imported(package, tmp_path):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise SystemExit('imported')\n")
    code = f"import sys; sys.path[:0] = {[str(tmp_path), str(REPOSITORY)]}; import dpt_on_ray as d; d.main()"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"dpt: the package {package} of dpt-on-ray is hidden by the one in {tmp_path}"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("change", [None, "unknown size", "other", "gone"])
def test_files_that_another_distribution_replaced_are_named(change, tmp_path, monkeypatch):
    path = tmp_path / "tune" / "__init__.py"
    path.parent.mkdir()
    path.write_text("ours")
    record = importlib.metadata.PackagePath("tune/__init__.py")
    record.size, record.dist = (
        path.stat().st_size,
        importlib.metadata.PathDistribution(tmp_path / "x.dist-info"),
    )
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [record])
    if change == "unknown size":
        record.size = None
    elif change == "other":
        path.write_text("theirs, longer")
    elif change == "gone":
        path.unlink()
    said = dpt_on_ray.clash()
    assert (said is None) == (change in (None, "unknown size"))
    assert said is None or f"{path} was replaced by another distribution's package tune" in said


def test_the_images_have_the_pinned_ray_and_all_that_a_wheel_needs():
    image = (REPOSITORY / "Dockerfile").read_text()
    pinned = re.search(r"^ray==(.*)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert set(re.findall(r"\b(\d+\.\d+\.\d+)-py311", image)) == {pinned[1]}
    stages = re.findall(r"^FROM rayproject/ray:\$\{RAY\}-(\w+) AS (\w+)$", image, re.MULTILINE)
    assert stages == [("cpu", "wheel"), ("cpu", "cpu"), ("gpu", "cuda")]
    sent = re.findall(r"^!(.*)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    wanted = ("dpt_on_ray.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")
    assert set(sent) == {*dpt_on_ray.PACKAGES, *wanted}
    for manifest in ("docs/rayjob.yaml", "cluster.yaml"):
        assert "./Dockerfile" in (REPOSITORY / manifest).read_text()


def test_every_file_of_the_repository_goes_into_the_source_distribution():
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git repository to ask which files belong to it")
    manifest = (REPOSITORY / "MANIFEST.in").read_text().split()
    packages = {
        *dpt_on_ray.PACKAGES,
        "dpt_on_ray.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "MANIFEST.in",
    }
    top = {Path(name).parts[0] for name in listed.stdout.splitlines()}
    assert top - packages - set(manifest) == set()
