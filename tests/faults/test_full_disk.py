"""Jobs whose disk fills up while they work: one line, which no attempt delays that could not succeed."""

import shutil
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mlflow import MlflowClient

from datasets_prep.storage.folder import Folder
from datasets_prep.storage.writing import PARTIAL_MARK
from datasets_prep.synthetic import write_dataset
from dpt import create_model, save_model
from tests.support.sessions import running

pytestmark = [pytest.mark.fault, pytest.mark.ray, pytest.mark.slow]

SMALL = ("crop=64", "batch_size=4", "log_every=1", "loader_workers=0", "steps=4", "checkpoint_every=2")
NEW = ("model.name=dpt_tiny", "model.pretrained=false")
TRAINING = ("--data", "{shards}", "--storage", "{out}", "--name", "x", *NEW, *SMALL)
STUDENT = [word for setting in (*NEW, *SMALL) for word in ("--set", f"train.{setting}")]
LABELLING = ("{photos}", "--model", "{model}", "--name", "x", "--out", "{out}")
LABELS = ("network_side=64", "samples_per_shard=4", "device=cpu")
COMMANDS = {
    "prepare": (("prepare", "redweb", "--raw", "{raw}/redweb", "--out", "{out}", "samples_per_shard=1"), 40),
    "stereo": (("stereo", "movies", "--videos", "{raw}/movies/videos", "--out", "{out}"), 24),
    "label": (("label", *LABELLING, *(f"--set={one}" for one in LABELS)), 60),
    "tune": (("tune", "{mine}.yaml", *TRAINING), 3000),
    "tune, at once": (("tune", "{mine}.yaml", *TRAINING), 8),
    "tune, later": (("tune", "{mine}.yaml", *TRAINING), 16),
    "distill": (
        (
            *("distill", *LABELLING, "--data", "{shards}", "--storage", "{out}", *STUDENT),
            *(f"--set=label.{one}" for one in LABELS),
        ),
        3000,
    ),
}
"""Command → its words, and the KiB that are left on its disk."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, raw_folder: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    save_model(create_model("dpt_tiny", image_size=64), folder / "model")
    (folder / "photos").mkdir()
    (folder / "mine.yaml").write_text("variants:\n  project: {}\n")
    rng = np.random.default_rng(1)
    for number in range(100):
        photo = rng.integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), photo)
    shutil.copytree(raw_folder / "redweb", folder / "raw" / "redweb")
    write_dataset("movies", folder / "raw" / "movies", scenes=3, height=128, width=192)
    return {name: folder / name for name in ("raw", "photos", "model", "mine")}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fills_up(command, inputs, shards_folder, mlflow_template, small_disk, tmp_path):
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments, left = COMMANDS[command]
    small_disk.fill(left * 1024)
    out = small_disk.outside / "out"
    words = [word.format(**inputs, shards=shards_folder, out=out) for word in arguments]
    began = time.monotonic()
    with running([sys.executable, "-m", "tune.cli", *words], {"MLFLOW_TRACKING_URI": uri}) as (process, log):
        code = process.wait(400)
        printed = log.read_text()
    print(f"{command}: {time.monotonic() - began:.0f} s\n{printed}")
    assert code == 1, printed
    assert "Traceback" not in printed, printed
    [line] = [line for line in printed.splitlines() if line.startswith("dpt: ")]
    assert f"{out}/" in line or f"{out}: " in line
    assert "No space left on device" in line or "the last checkpoint could not be written" in line
    Folder(out).remove_partial_files()  # of workers that the job's end killed; the next job begins with it
    assert not list(out.rglob(f"*{PARTIAL_MARK}*"))
    assert {run.info.status for run in MlflowClient(uri).search_runs(["0", "1"])} <= {"FAILED"}
