"""What the README shows of reading shards without this project, run as it stands there."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest

from datasets_prep.manifest import open_dataset
from tests.support.paths import REPOSITORY

README = REPOSITORY / "README.md"
SECTION = "## Reading the shards without this project"


def snippet(language: str) -> str:
    """The section's only code block of that language."""
    section = README.read_text(encoding="utf-8").split(SECTION)[1].split("\n## ")[0]
    [code] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return str(code)


def test_python_reads_a_shard(shards_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = snippet("python")
    for package in ("dpt", "datasets_prep", "pipelines"):
        assert f"import {package}" not in code
    (tmp_path / "snippet.py").write_text(code)
    shutil.copy(f"{open_dataset(str(shards_folder / 'tartanair')).folder.path}/train-00000.parquet", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path("snippet.py")
    shape = (found["row"]["height"], found["row"]["width"])
    assert found["image"].shape == (*shape, 3)
    assert found["inverse_depth"].shape == shape
    assert np.nanmax(found["inverse_depth"]) == 1.0
    assert 0 < np.nanmin(found["metres"]) < 1000


def test_duckdb_reads_the_statistics(shards_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards_folder.parent)
    query = snippet("sql").replace("'shards/", f"'{shards_folder.name}/")
    rows = {(row[0], row[1]): row[2:] for row in duckdb.sql(query).fetchall()}
    assert rows[("redweb", "train")][0] == 15
    assert rows[("redweb", "val")][0] == 5
    assert all(0 < share <= 1 and 0 < median <= 1 for _, share, median in rows.values())
