"""What README and docs show that needs Ray or MLflow: the README's tour, shards read without this project."""

import runpy
import shutil
from pathlib import Path

import cv2
import duckdb
import numpy as np

from datasets_prep.manifest import open_dataset
from tests.support.commands import said
from tests.support.documents import README, blocks, commands
from tests.test_docs import LOADS_REGISTERED, READS_SHARDS

SMALLER = {"--scenes 60": "--scenes 8", "steps=300": "steps=2", "step_00000300": "step_00000002"}
SMALLER["checkpoint_every=100"] = "checkpoint_every=1"
"""What the tour says → what it says here, where a minute must do."""


def snippet(language: str, containing: str) -> str:
    [block] = [block for block in blocks(language) if containing in block.code]
    return block.code


def tour() -> list[list[str]]:
    """The commands of the README's tour, but for the set-up, on less data."""
    lines = [block for block in blocks("sh") if block.page == README]
    text = README.read_text(encoding="utf-8")
    first, last = (
        text[: text.index(title)].count("\n") for title in ("## A tour", "## The same with real data")
    )
    code = "\n".join(block.code for block in lines if first < block.line < last)
    for there, here in SMALLER.items():
        assert there in code
        code = code.replace(there, here)
    return [words[1:] for words in commands(code) if words[0] == "dpt"]


def test_the_tour_of_the_readme_and_a_registered_model(tmp_path, monkeypatch, ray_session, mlflow_database):
    monkeypatch.chdir(tmp_path)
    steps = tour()
    assert [words[0] for words in steps] == [
        *("generate", "prepare", "inspect", "train", "evaluate", "publish", "models", "predict")
    ]
    for words in steps:
        said(*words)
    assert (tmp_path / "inspection" / "inspection.html").is_file()
    assert len(list((tmp_path / "predictions").glob("*_colour.png"))) == 5
    cv2.imwrite("photo.jpg", np.zeros((48, 64, 3), np.uint8))
    Path("snippet.py").write_text(snippet("python", LOADS_REGISTERED))
    assert runpy.run_path("snippet.py")["inverse_depth"].shape == (48, 64)


def test_python_reads_a_shard(shards_folder, tmp_path, monkeypatch):
    code = snippet("python", READS_SHARDS)
    for package in ("dpt", "datasets_prep", "pipelines"):
        assert f"import {package}" not in code
    (tmp_path / "snippet.py").write_text(code)
    shutil.copy(f"{open_dataset(str(shards_folder / 'tartanair')).folder.path}/train-00000.parquet", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path("snippet.py")
    shape = (found["row"]["height"], found["row"]["width"])
    assert (found["image"].shape, found["inverse_depth"].shape) == ((*shape, 3), shape)
    assert np.nanmax(found["inverse_depth"]) == 1.0
    assert 0 < np.nanmin(found["metres"]) < 1000


def test_duckdb_reads_the_statistics(shards_folder, monkeypatch):
    monkeypatch.chdir(shards_folder.parent)
    query = snippet("sql", "DuckDB").replace("'shards/", f"'{shards_folder.name}/")
    rows = {(row[0], row[1]): row[2:] for row in duckdb.sql(query).fetchall()}
    assert (rows[("redweb", "train")][0], rows[("redweb", "val")][0]) == (15, 5)
    assert all(0 < share <= 1 and 0 < median <= 1 for _, share, median in rows.values())
