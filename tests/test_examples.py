"""The scripts of examples/ do what they say."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import ray

import dpt
from datasets_prep.manifest import open_dataset
from datasets_prep.sources import SOURCES
from datasets_prep.synthetic import write_dataset
from tests.support.paths import REPOSITORY
from tests.support.preparing import pixels, without_ray


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "examples" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_source_of_ones_own_takes_forty_lines_and_is_prepared(tmp_path, monkeypatch, capsys):
    for number, room in enumerate(("hall", "hall", "kitchen")):
        folder = tmp_path / "raw" / room
        folder.mkdir(parents=True, exist_ok=True)
        scan = np.linspace(1000, 4000, 48 * 64).reshape(48, 64).astype(np.uint16)
        scan[:24] = 0
        photo = np.full((48, 64, 3), 90, np.uint8)
        cv2.imwrite(str(folder / f"photo_{number}.jpg"), photo)
        cv2.imwrite(str(folder / f"laser_{number}.png"), scan)
    (tmp_path / "raw/hall/laser_1.png").unlink()
    monkeypatch.delitem(SOURCES, "scanner", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    without_ray(monkeypatch)
    module = example("own_source")
    module.main(str(tmp_path / "raw"), str(tmp_path / "out"))
    monkeypatch.delitem(SOURCES, "scanner")
    assert "1 left out" in capsys.readouterr().out
    done = open_dataset(str(tmp_path / "out" / "scanner"))
    assert [entry["reason"] for entry in done.read_quarantine()] == ["no scan hall/laser_1.png"]
    assert set(pixels(done)) == {"hall/0", "kitchen/2"}
    code = (REPOSITORY / "examples/own_source.py").read_text().split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40


@pytest.mark.slow
@pytest.mark.ray
def test_a_folder_of_ones_own_is_trained_on(tmp_path, monkeypatch, capsys, mlflow_database):
    monkeypatch.chdir(tmp_path)
    write_dataset("folder", Path("raw"), scenes=4, height=64, width=96)
    dpt.save_model(dpt.create_model("dpt_tiny", image_size=64), Path("model"))
    small = ("steps=2", "batch_size=2", "crop=64", "loader_workers=0", "precision=float32", "device=cpu")
    example("finetune_folder").main("raw", "model", *small, "validate_every=2", "checkpoint_every=2")
    said = capsys.readouterr().out
    assert "abs_rel" in said
    assert re.search(r"raw/images/.*: [\d.]+ to [\d.]+ m\n", said)
