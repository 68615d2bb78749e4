"""The commit of the code, against git itself; and what a job without a repository knows."""

import json
import subprocess
from pathlib import Path

import pytest

from pipelines.tracking.source_commit import short, source_commit


def git(tree: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    return subprocess.check_output(["git", "-C", str(tree), *identity, *words], text=True).strip()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DPT_GIT_COMMIT", raising=False)
    root = tmp_path / "tree"
    root.mkdir()
    git(root, "init", "-q")
    (root / "code.py").write_text("1\n")
    git(root, "add", "code.py")
    git(root, "commit", "-q", "-m", "first")
    git(root, "tag", "-a", "v1", "-m", "a release has the same commit")
    return root


def test_a_clean_tree_has_its_commit_and_a_changed_one_says_so(tree):
    commit = git(tree, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert source_commit(tree) == commit
    (tree / "notes.txt").write_text("not tracked")
    assert source_commit(tree) == commit
    (tree / "code.py").write_text("2\n")
    assert source_commit(tree) == f"{commit}-dirty"
    git(tree, "add", "code.py")
    assert source_commit(tree) == f"{commit}-dirty", "staged, not committed"


def test_without_a_repository_of_its_own_it_is_what_the_submitter_said(tree, monkeypatch):
    installed = tree / ".venv/lib/site-packages"
    installed.mkdir(parents=True)
    assert source_commit(installed) == "unknown", "another project's repository"
    monkeypatch.setenv("DPT_GIT_COMMIT", "a1b2c3-dirty")
    assert source_commit(installed) == "a1b2c3-dirty"
    assert source_commit(tree) == git(tree, "rev-parse", "HEAD"), "what is here is known better"


def test_a_job_without_it_has_its_metadata_or_the_digest_of_its_code(tmp_path, monkeypatch):
    monkeypatch.delenv("DPT_GIT_COMMIT", raising=False)
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert source_commit(tmp_path) == "ray_pkg_0123456789abcdef"
    assert short(source_commit(tmp_path)) == "ray_pkg_01234567"
    job["metadata"]["git_commit"] = "a1b2c3d4e5f6"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert short(source_commit(tmp_path)) == "a1b2c3d4"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert source_commit(tmp_path) == "unknown"
