"""The rules of the house: who may import whom, what lies at the top, and what no file may say."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

PACKAGES = ("dpt", "datasets_prep", "pipelines", "tune")

FORBIDDEN_IMPORTS = {
    "dpt": {"datasets_prep", "pipelines", "tune", "ray", "mlflow"},
    "datasets_prep": {"pipelines", "tune", "mlflow"},
    "pipelines": {"tune"},
    "tune": set(),
}
"""Package → what none of its modules may import: the science knows no job, the data knows no training."""

MAY_IMPORT_TUNE = {"tune/cli.py"}

TOP_LEVEL = {
    *(".ci", ".gitignore", ".rayignore"),
    *("LICENSE", "Makefile", "README.md", "cluster.yaml", "constraints.txt", "pyproject.toml"),
    *("benchmarks", "datasets_prep", "docs", "dpt", "pipelines", "tests", "tune"),
}
REQUIRED = TOP_LEVEL - {"docs", "benchmarks"}

REGISTRY_ADDRESS = re.compile(
    r"--(extra-)?index-url|index[-_]url\s*=|pyp[i]\.|pythonhoste[d]|download\.pytorc[h]|artifactory|devpi|/simple\b"
)
MACHINE_PATH = re.compile(r"(?<![\w.~$}>*-])/(work|root|home|Users|mnt|workspace)(?![\w-])")

SELF = "tests/test_house.py"
"""The one file that must name what it forbids."""


def modules(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def tracked_files() -> list[str]:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no git repository to ask which files belong to it")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def imported(source: str, package: str) -> Iterator[str]:
    """Top-level names that a module imports anywhere, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else str(node.module).split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield str(node.args[0].value).split(".")[0]


# ---- the rules


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    found = {}
    for path in modules(package):
        name = str(path.relative_to(REPOSITORY))
        forbidden = FORBIDDEN_IMPORTS[package] - ({"tune"} if name in MAY_IMPORT_TUNE else set())
        if wrong := forbidden & set(imported(path.read_text(), package)):
            found[name] = wrong
    assert found == {}
    assert modules(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_tests_or_benchmarks(package: str) -> None:
    outside = {"tests", "benchmarks", "pytest", "conftest"}
    assert {
        path.name for path in modules(package) if outside & set(imported(path.read_text(), package))
    } == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_is(package: str) -> None:
    silent = [
        str(path.relative_to(REPOSITORY))
        for path in modules(package)
        if len((ast.get_docstring(ast.parse(path.read_text())) or "").split()) < 3
    ]
    assert silent == []


def test_the_top_level_is_fixed() -> None:
    top = {name.split("/")[0] for name in tracked_files()}
    assert top - TOP_LEVEL == set(), "a new file or folder at the top"
    assert REQUIRED - top == set(), "missing at the top"


def test_no_file_names_a_registry_or_a_machine() -> None:
    assert [finding for name in tracked_files() if name != SELF for finding in offences(name)] == []


def test_nothing_tracked_is_large_or_generated() -> None:
    assert [name for name in tracked_files() if (REPOSITORY / name).stat().st_size > 2**20] == []
    generated = re.compile(r"(__pycache__|\.egg-info|\.parquet$|\.safetensors$|\.db$|\.pyc$)")
    assert [name for name in tracked_files() if generated.search(name)] == []


def offences(name: str) -> Iterator[str]:
    try:
        text = (REPOSITORY / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:  # a picture
        return
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in (("registry", REGISTRY_ADDRESS), ("machine path", MACHINE_PATH)):
            if found := pattern.search(line):
                yield f"{name}:{number}: {what}: {found[0]}"


# ---- the rules can be broken


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "import ray.data as rd",
        "from ray.train import report",
        "def late():\n    from ray import init",
        "if TYPE_CHECKING:\n    import ray",
        "importlib.import_module('ray.tune')",
    ],
)
def test_an_import_is_seen_wherever_it_hides(source: str) -> None:
    assert "ray" in set(imported(source, "dpt"))


def test_a_namesake_is_no_import() -> None:
    assert set(imported("import rayon\nray = 1\nfrom . import ray", "dpt")) == {"rayon", "dpt"}


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://mirror.example/simple",
        "index_url = https://pypi.example",
        "pip install -i https://artifactory.example/api/pypi/x/simple y",
        "https://files.python" + "hosted.org/packages/x.whl",
    ],
)
def test_a_registry_address_is_seen(line: str) -> None:
    assert REGISTRY_ADDRESS.search(line)


@pytest.mark.parametrize(
    "line", ["cd /" + "work/main", "'/" + "root/.cache'", "open('/home/me/x')", "PATH=/Users/me/bin"]
)
def test_a_machine_path_is_seen(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize(
    "line", ["~/" + "work/x", "s3://bucket/home/x", "runs/work/x", "$HOME/root/x", "/workers", "a/b"]
)
def test_other_paths_are_not(line: str) -> None:
    assert not MACHINE_PATH.search(line)
