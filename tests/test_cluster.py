"""`cluster.yaml` and `.rayignore`, as far as they can be checked without an AWS account.

Ray's own schema rejects misspelt keys; the rest here is what the schema cannot know: that nothing is open to
the internet, that nothing runs while idle, and that the nodes get the versions that we pin.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.support.paths import REPOSITORY
from tests.support.ray_package import zip_working_directory

MEBIBYTE = 2**20

KEPT = """
tune/cli.py pipelines/demo.py pipelines/configs/demo.yaml datasets_prep/sources/redweb.py
"""
JUNK = """
.git/objects/aa/bb .venv/lib/big.so venv/lib/big.so .mypy_cache/3.11/x.json .ruff_cache/x .hypothesis/x
.pytest_cache/v/x dpt/__pycache__/x.pyc x.egg-info/PKG-INFO build/lib/dpt/model.py dist/dpt.whl
demo/raw/redweb/Imgs/0.jpg runs/first/weights.bin mlruns/0/meta.yaml mlartifacts/1/x mlflow.db
inspection/redweb.png shards/x/_manifest.json elsewhere/train-00000.parquet elsewhere/model.safetensors
elsewhere/depth.npy photo.jpeg tests/test_house.py benchmarks/loading.py docs/scaling.md
"""


@pytest.fixture(scope="module")
def text() -> str:
    return (REPOSITORY / "cluster.yaml").read_text()


@pytest.fixture
def cluster(text: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(text)
    return config


@pytest.fixture
def node_types(cluster: dict[str, Any]) -> dict[str, Any]:
    types: dict[str, Any] = cluster["available_node_types"]
    return types


def test_ray_accepts_it(cluster, monkeypatch):
    monkeypatch.chdir(REPOSITORY)  # file mounts are relative to where `ray up` runs
    prepared = prepare_config(cluster)
    validate_config(prepared)
    # Ray's defaults must not come back in: they install a nightly wheel.
    assert not [command for command in prepared["head_setup_commands"] if "ray-wheels" in command]


def test_ray_rejects_a_misspelt_key(cluster):
    with pytest.raises(Exception, match="idle_timeout_minuets"):
        validate_config(prepare_config(cluster | {"idle_timeout_minuets": 5}))


def test_the_head_offers_no_cpu(cluster, node_types):
    head = node_types[cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"], "a reclaimed spot head ends every job"


def test_no_worker_runs_while_there_is_nothing_to_do(cluster, node_types):
    workers = {name: kind for name, kind in node_types.items() if name != cluster["head_node_type"]}
    assert sum(kind["min_workers"] for kind in workers.values()) == 0
    assert sum(kind["max_workers"] for kind in workers.values()) <= cluster["max_workers"]
    assert cluster["provider"]["cache_stopped_nodes"] is False
    assert 0 < cluster["idle_timeout_minutes"] <= 15


def test_cpu_work_is_on_spot_and_training_has_gpus(node_types):
    spot = {name for name, kind in node_types.items() if "InstanceMarketOptions" in kind["node_config"]}
    gpu = {name for name, kind in node_types.items() if kind["resources"].get("GPU")}
    assert spot == {"cpu_spot"}
    assert gpu == {"gpu"}


def test_nothing_is_open_to_the_internet(text, cluster, node_types):
    assert "0.0.0.0" not in text
    assert "::/0" not in text
    assert cluster["provider"]["use_internal_ips"] is True
    # A group that Ray makes, for want of one here or with rules of ours, opens SSH to everyone.
    assert "security_group" not in cluster["provider"]
    for name, kind in node_types.items():
        assert kind["node_config"]["SecurityGroupIds"], name
        assert kind["node_config"]["SubnetIds"], name
        assert "NetworkInterfaces" not in kind["node_config"], name
    assert all("--dashboard-host=127.0.0.1" in c for c in head_starts(cluster))


def test_every_node_demands_the_token(cluster):
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_credentials_come_from_instance_profiles_only(text, node_types):
    for name, kind in node_types.items():
        assert kind["node_config"]["IamInstanceProfile"]["Name"], name
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required", name
    assert not re.search(r"AKIA|aws_secret|SECRET_ACCESS_KEY", text, re.IGNORECASE)


def test_images_have_the_pinned_ray_and_a_supported_python(cluster, node_types):
    docker = cluster["docker"]
    images = {docker["image"], docker["head_image"]}
    images |= {kind["docker"]["worker_image"] for kind in node_types.values() if "docker" in kind}
    tags = [re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d)(\d+)-(cpu|gpu)", image) for image in sorted(images)]
    assert all(tags), images
    assert {tag[1] for tag in tags if tag} == {pinned_version("ray")}
    pythons = {(int(tag[2]), int(tag[3])) for tag in tags if tag}
    assert len(pythons) == 1, "workers must run the Python of the head"
    (python,) = pythons
    assert python >= oldest_python()
    supported = importlib.metadata.metadata("ray").get_all("Classifier", [])
    assert f"Programming Language :: Python :: {python[0]}.{python[1]}" in supported
    assert node_types["gpu"].get("docker", {}).get("worker_image", docker["image"]).endswith("-gpu")


@pytest.mark.heavy
def test_nodes_install_our_pins_without_our_code(cluster, tmp_path):
    """The mounted files are enough to build: dependencies and the `dpt` command, but none of the packages."""
    mounts = {remote: local for remote, local in cluster["file_mounts"].items() if "dpt-install" in remote}
    assert "~/dpt-install/constraints.txt" in mounts
    assert all('-c "$build/constraints.txt" "$build[train,s3]"' in c for c in cluster["setup_commands"])
    for remote, local in mounts.items():
        shutil.copy(REPOSITORY / local, tmp_path / Path(remote).name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path / "wheels"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".py")]
        (scripts,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "dpt = dpt_on_ray:main" in archive.read(scripts).decode()


# ---- what `ray job submit --working-dir .` uploads
def packed(folder: Path, target: Path) -> list[str]:
    """Pack a working directory as `ray job submit` does; returns the names of the files in it."""
    zip_working_directory(folder, target)
    with zipfile.ZipFile(target) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def test_the_upload_is_small_and_complete(tmp_path):
    names = packed(REPOSITORY, tmp_path / "package.zip")
    # Ray does not compress what it packs.
    assert (tmp_path / "package.zip").stat().st_size < 2 * MEBIBYTE
    packages = ("dpt", "datasets_prep", "pipelines", "tune")
    code = tracked(*(f"{package}/**" for package in packages))
    assert len(code) > 30
    assert sorted(code - set(names)) == []
    assert {name.split("/")[0] for name in names}.isdisjoint({".git", ".venv", "tests", "benchmarks", "docs"})


@pytest.mark.parametrize("with_gitignore", [True, False])
def test_the_upload_leaves_out_what_work_leaves_behind(tmp_path, with_gitignore):
    """A downloaded archive has no repository around it: `.rayignore` must do without `.gitignore`."""
    tree = tmp_path / "tree"
    kept, junk = KEPT.split(), JUNK.split()
    for name in kept + junk:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    shutil.copy(REPOSITORY / ".rayignore", tree)
    if with_gitignore:
        shutil.copy(REPOSITORY / ".gitignore", tree)
    names = set(packed(tree, tmp_path / "package.zip")) - {".rayignore", ".gitignore"}
    assert names == set(kept)


def head_starts(cluster: dict[str, Any]) -> list[str]:
    commands = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    assert commands
    return commands


def pinned_version(package: str) -> str:
    constraints = (REPOSITORY / "constraints.txt").read_text()
    (version,) = re.findall(rf"^{package}==(\S+)", constraints, re.MULTILINE)
    return str(version)


def oldest_python() -> tuple[int, int]:
    found = re.search(r'requires-python = ">=(\d)\.(\d+)"', (REPOSITORY / "pyproject.toml").read_text())
    assert found
    return int(found[1]), int(found[2])


def tracked(*patterns: str) -> set[str]:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no git repository to ask which files belong to it")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return {name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).exists()}
