"""The rules of the house: who may import whom, what lies at the top, and what no file may say."""

import ast
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

PACKAGES = ("dpt", "datasets_prep", "pipelines", "tune")

OUTSIDE = {"dpt": {"ray", "mlflow"}, "datasets_prep": {"mlflow"}, "pipelines": set(), "tune": set()}
"""Package → libraries that none of its modules may import: the science knows no job, the data no registry."""

ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
INDEXES = {"datasets_prep/sources", "datasets_prep/writers"}
"""Folders that are an index, one file a dataset, and may be long."""

MOST_FILES = 16
PUBLIC_NAMES = {"dpt/__init__.py", "dpt/weights/__init__.py", "dpt/predict/__init__.py"}
"""The only `__init__.py` that import: loading processes import a room without its neighbours."""

TOP_LEVEL = {
    *(".ci", ".dockerignore", ".github", ".gitignore", ".pre-commit-config.yaml", ".rayignore", "Dockerfile"),
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("MANIFEST.in", "cluster.yaml", "constraints.txt", "dpt_on_ray.py", "mkdocs.yml"),
    "pyproject.toml",
    *("benchmarks", "datasets_prep", "docs", "dpt", "examples", "pipelines", "tests", "tune"),
}
REQUIRED = TOP_LEVEL - {"docs", "benchmarks", "examples"}

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


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """`pipelines.zero_shot.sets` → `pipelines.zero_shot`; a file beside the folders is a room of its own."""
    return ".".join(module.split(".")[:2])


def modules_imported(source: str, known: set[str]) -> set[str]:
    """Modules of the project that a module imports anywhere, in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & known) or {str(node.module)}
    return found & known


def arrows() -> set[tuple[str, str]]:
    """All pairs of modules of which the first imports the second."""
    paths = {module_name(path): path for package in PACKAGES for path in modules(package)}
    found = {name: modules_imported(path.read_text(), set(paths)) for name, path in paths.items()}
    return {(name, other) for name, others in found.items() for other in others - {name}}


def floors() -> dict[str, int]:
    """Room → its line in the architecture's list of floors, lowest first."""
    listed = ARCHITECTURE.read_text().split("```floors\n")[1].split("```")[0].splitlines()
    return {room: number for number, line in enumerate(listed) for room in line.split()}


def upward(pairs: set[tuple[str, str]], floor: dict[str, int]) -> list[str]:
    """The arrows from a room to one that is not below it."""
    return sorted(
        f"{name} → {other}"
        for name, other in pairs
        if room_of(name) != room_of(other) and floor[room_of(name)] <= floor[room_of(other)]
    )


def circles(pairs: set[tuple[str, str]]) -> set[str]:
    """The modules on or between circles: what is left when those that import nothing left are taken away."""
    left = {name for pair in pairs for name in pair}
    while True:
        ends = left - {name for name, other in pairs if name in left and other in left}
        ends |= left - {other for name, other in pairs if name in left and other in left}
        if not ends:
            return left
        left -= ends


# ---- the rules


@pytest.mark.parametrize("package", PACKAGES)
def test_libraries_stay_in_the_packages_that_know_them(package: str) -> None:
    wrong = {
        str(path.relative_to(REPOSITORY)): OUTSIDE[package] & set(imported(path.read_text(), package))
        for path in modules(package)
    }
    assert {name: found for name, found in wrong.items() if found} == {}
    assert modules(package)


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module_name(path)) for package in PACKAGES for path in modules(package)}
    assert set(floors()) == rooms


@pytest.mark.heavy
def test_imports_go_down_only() -> None:
    assert upward(arrows(), floors()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows()) == set()


def test_folders_are_small_and_one_level_deep() -> None:
    for package in PACKAGES:
        folders = {path.parent for path in modules(package)}
        for folder in folders:
            name = str(folder.relative_to(REPOSITORY))
            assert name.count("/") <= 1, f"{name} lies too deep"
            count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
            assert count <= MOST_FILES or name in INDEXES, f"{name} has {count} files"


def test_no_file_repeats_the_name_of_its_folder() -> None:
    for package in PACKAGES:
        for path in modules(package):
            folder, stem = path.parent.name, path.stem
            assert stem not in (folder, folder.removesuffix("s")), path
            assert not stem.startswith((f"{folder}_", f"{folder.removesuffix('s')}_")), path


def parameters(node: ast.AST) -> list[str]:
    """Parameters of a public function, or fields and `__init__`'s parameters of a public class."""
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]
    names = []
    for entry, after in itertools.zip_longest(node.body, node.body[1:]):
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            names += [] if described or entry.target.id.startswith("_") else [entry.target.id]
        elif isinstance(entry, ast.FunctionDef) and entry.name == "__init__":
            names += parameters(entry)
    return names


def unnamed_parameters(source: str) -> list[str]:
    """Public functions and classes whose docstring leaves a parameter out, unless it refers to another's."""
    found = []
    public = [*ast.parse(source).body]
    for node in public:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        public += node.body if isinstance(node, ast.ClassDef) else []
        text = ast.get_docstring(node) or ""
        if "Args:" not in text and re.search(r"\b[Aa]s (in )?`|[Ss]ee `", text):
            continue
        missing = [name for name in parameters(node) if not re.search(rf"(?<!\w){name}(?!\w)", text)]
        found += [f"{node.name}: {', '.join(missing)}"] if missing else []
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_name_every_parameter(package: str) -> None:
    # A command's parameters are described by the help of its options.
    paths = [path for path in modules(package) if path.parent.name != "cli" and path.stem != "cli"]
    found = {str(path.relative_to(REPOSITORY)): unnamed_parameters(path.read_text()) for path in paths}
    assert {name: entries for name, entries in found.items() if entries} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_nothing_by_themselves(package: str) -> None:
    for path in modules(package):
        name = str(path.relative_to(REPOSITORY))
        if (
            path.name == "__init__.py"
            and name not in PUBLIC_NAMES
            and path.parent.name not in ("sources", "writers")
        ):
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, f"{name} has more than a docstring"


def test_every_file_that_the_architecture_names_is_there() -> None:
    text = ARCHITECTURE.read_text()
    named = re.findall(r"`((?:dpt|datasets_prep|pipelines|tune|tests|docs|benchmarks)/[\w./-]*)`", text)
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


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
    generated = re.compile(r"(__pycache__|\.egg-info|\.parquet$|\.safetensors$|\.db$|\.pyc$)")
    large = {name for name in tracked_files() if (REPOSITORY / name).stat().st_size > 2**20}
    assert large | {name for name in tracked_files() if generated.search(name)} == set()


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


def test_an_arrow_upwards_and_a_circle_are_seen() -> None:
    pairs = {("a.low.x", "a.high"), ("a.high", "a.low.y"), ("a.low.y", "a.low.x")}
    assert upward(pairs, {"a.low": 0, "a.high": 1}) == ["a.low.x → a.high"]
    assert circles(pairs | {("a.high", "a.end"), ("a.start", "a.high")}) == {"a.low.x", "a.high", "a.low.y"}
    assert circles(pairs - {("a.low.x", "a.high")}) == set()
    source = "from a.low import x, y\nif TYPE_CHECKING:\n    import a.high"
    assert modules_imported(source, {"a.low", "a.low.x", "a.high"}) == {"a.low.x", "a.high"}


HIDDEN = (
    "import ray", "import ray.data as rd", "from ray.train import report",
    "if TYPE_CHECKING:\n    import ray", "def late():\n    from ray import init", "import_module('ray.tune')",
)  # fmt: skip


@pytest.mark.parametrize("source", HIDDEN)
def test_an_import_is_seen_wherever_it_hides(source: str) -> None:
    assert "ray" in set(imported(source, "dpt"))


def test_a_parameter_without_a_word_is_seen() -> None:
    source = """
def crop(image, side):
    "Crop an `image`."
class Size:
    "Of `height`."
    height: int
    width: int
"""
    assert unnamed_parameters(source) == ["crop: side", "Size: width"]


def test_a_namesake_is_no_import() -> None:
    assert set(imported("import rayon\nray = 1\nfrom . import ray", "dpt")) == {"rayon", "dpt"}


REGISTRIES = (
    "--index-url https://mirror.example/simple", "index_url = https://pypi.example",
    "pip install -i https://artifactory.example/api/pypi/x/simple y",
    "https://files.python" + "hosted.org/packages/x.whl",
)  # fmt: skip
MACHINES = ("cd /" + "work/main", "'/" + "root/.cache'", "open('/home/me/x')", "PATH=/Users/me/bin")
OTHERS = ("~/" + "work/x", "s3://bucket/home/x", "runs/work/x", "$HOME/root/x", "/workers", "a/b")


def test_registries_and_machine_paths_are_seen_and_other_paths_are_not() -> None:
    assert [line for line in REGISTRIES if not REGISTRY_ADDRESS.search(line)] == []
    assert [line for line in MACHINES if not MACHINE_PATH.search(line)] == []
    assert [line for line in OTHERS if MACHINE_PATH.search(line)] == []
