"""Signals in every stage of the long commands: one line, a code that names the signal, nothing left behind.

A stage has begun when a file of it is there, or a line of it printed; the moment within it is seeded. Signals
go to the process, once or twice, to its group, as `timeout` sends them, or to all processes of its job.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from datasets_prep.storage.writing import PARTIAL_MARK
from datasets_prep.synthetic import write_dataset
from dpt import create_model, save_model
from tests.support.faulty_training import wait_until
from tests.support.sessions import running, session_processes

pytestmark = [pytest.mark.fault, pytest.mark.ray]

SECONDS = 20
"""Within which a command ends."""

WAYS = {
    "Ctrl-C": signal.SIGINT,
    "Ctrl-C twice": signal.SIGINT,
    "process": signal.SIGTERM,
    "group": signal.SIGTERM,
    "job": signal.SIGTERM,
    "terminal closed": signal.SIGHUP,
}
SMALL = ("crop=64", "batch_size=4", "log_every=1", "loader_workers=1")
NEW = ("model.name=dpt_tiny", "model.pretrained=false")
TRAINING = ("--data", "{shards}", "--storage", "{out}", "--name", "x", *NEW, *SMALL)
LONG = "steps=100000"
LABELLING = (
    *("{photos}", "--model", "{model}", "--name", "x", "--out", "{out}"),
    *("--set", "{label}network_side=256", "--set", "{label}samples_per_shard=10"),
)
STUDENT = [word for setting in (*NEW, *SMALL, LONG) for word in ("--set", f"train.{setting}")]
STAGES = {
    "generate, writing": (("generate", "redweb", "--out", "{out}", "--scenes", "3000"), "**/*.jpg"),
    "prepare, start": (("prepare", "redweb", "--raw", "{raw}/redweb", "--out", "{out}"), "20 samples"),
    "prepare, listing": (("prepare", "redweb", "--raw", "{raw}/redweb", "--out", "{out}"), "*/listing*"),
    "prepare, writing": (
        ("prepare", "redweb", "--raw", "{raw}/redweb", "--out", "{out}", "samples_per_shard=1", "side=512"),
        "**/*.parquet",
    ),
    "stereo, writing": (
        ("stereo", "movies", "--videos", "{raw}/movies/videos", "--out", "{out}"),
        "**/*.jpg",
    ),
    "predict, writing": (("predict", "{photos}", "--model", "{model}", "--out", "{out}"), "*.npy"),
    "evaluate, measuring": (
        ("evaluate", "--model", "{model}", "--data", "{shards}", "--verbose", "side=2048"),
        "side: ",
    ),
    "train, start": (("train", *TRAINING, LONG), "x/lease*"),
    "train, steps": (("train", *TRAINING, LONG), "step 2/"),
    "train, validating": (("train", *TRAINING, LONG, "validate_every=1"), "step 2/"),
    "train, saving": (("train", *TRAINING, LONG, "checkpoint_every=1"), "x/step_00000002"),
    "train, publishing": (("train", *TRAINING, "steps=3"), "x/step_00000003/state.json"),
    "tune, start": (("tune", "readout", *TRAINING, LONG), "trials at once"),
    "tune, steps": (("tune", "readout", *TRAINING, LONG), "step 2/"),
    "evaluate, zero-shot": (
        ("evaluate", "--model", "{model}", "--on", "sintel", "--raw", "{raw}/sintel", "--allow-missing"),
        "images, read as",
    ),
    "finetune, steps": (
        ("finetune", "{shards}/tartanair", "-m", "{model}", "-n", "x", "--storage", "{out}", *SMALL, LONG),
        "step 2/",
    ),
    "label, hashing": (("label", *LABELLING, "--set", "duplicates=0"), "reading all pictures"),
    "label, writing": (("label", *LABELLING), "x/**/*.parquet"),
    "distill, steps": (
        ("distill", *LABELLING, "--data", "{shards}", "--storage", "{out}", *STUDENT),
        "step 2/",
    ),
    "export, writing": (("export", "{model}", "--to", "pt2", "--out", "{out}/model.pt2"), "*"),
    "serve": (("serve", "--model", "{model}", "--port", "0"), "http://"),
    "demo, start": (("demo", "--out", "{out}"), "demo.log"),
    "demo, generating": (("demo", "--out", "{out}"), "raw/**/*.jpg"),
}
"""Stage → command, and a text that it prints, or else the pattern of a file that it writes, in that stage."""

QUICK = {("generate, writing", "Ctrl-C twice"), ("predict, writing", "Ctrl-C")}


@dataclass(frozen=True)
class World:
    """What commands read, and where they write."""

    raw: Path
    shards: Path
    photos: Path
    model: Path
    out: Path


def moments() -> list[object]:
    """Every stage with some way, every way with some stage; `QUICK` ones are in the quick suite."""
    ways = list(WAYS)
    random.Random("ways").shuffle(ways)
    chosen = [(stage, ways[number % len(ways)]) for number, stage in enumerate(STAGES)]
    slow = [pytest.param(*each, marks=pytest.mark.slow) for each in chosen if each not in QUICK]
    return [*QUICK, *slow]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, raw_folder: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    save_model(create_model("dpt_tiny", image_size=64), folder / "model")
    (folder / "photos").mkdir()
    for number in range(500):
        cv2.imwrite(str(folder / "photos" / f"{number}.jpg"), np.full((48, 64, 3), number % 256, np.uint8))
    shutil.copytree(raw_folder / "redweb", folder / "raw" / "redweb")
    write_dataset("movies", folder / "raw" / "movies", scenes=3, height=128, width=192)
    write_dataset("sintel", folder / "raw" / "sintel", scenes=20, height=128, width=192)
    return {"raw": folder / "raw", "photos": folder / "photos", "model": folder / "model"}


@pytest.mark.parametrize(("stage", "way"), moments())
def test_a_signal_ends_a_command(stage, way, inputs, shards_folder, mlflow_template, tmp_path):
    out, rng = tmp_path / "out", random.Random(f"{stage}, {way}")
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments, sign = STAGES[stage]
    label = "label." if arguments[0] == "distill" else ""
    words = [word.format(**inputs, shards=shards_folder, out=out, label=label) for word in arguments]
    with running([sys.executable, "-m", "tune.cli", *words], {"MLFLOW_TRACKING_URI": uri}) as (process, log):
        wait_until(lambda: sign in log.read_text() or any(out.glob(sign)), process, log)
        time.sleep(rng.uniform(0, 1))
        patience = SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others may be at work
        sent = time.monotonic()
        send(way, process.pid)
        code = process.wait(120)
        seconds = time.monotonic() - sent
        while left := session_processes(process.pid):
            assert time.monotonic() - sent < patience, [p.cmdline() for p in left]
            time.sleep(0.1)
        printed = log.read_text()
    print(f"{stage}, {way}: {seconds:.1f} s")
    assert code == 128 + WAYS[way], printed
    assert seconds < patience, printed
    assert "Traceback" not in printed, printed
    assert "SIGTERM received" not in printed, printed  # Ray's stack trace
    assert len([line for line in printed.splitlines() if line.startswith("dpt: ")]) == 1, printed
    check_whole(out)
    statuses = {run.info.status for run in MlflowClient(uri).search_runs(["0", "1"])}
    evaluated = {"FINISHED"} if stage == "distill, steps" else set()  # the teacher, before
    assert statuses <= {"KILLED", *evaluated}


def send(way: str, leader: int) -> None:
    """Signal the session of that `leader`."""
    number, receivers = WAYS[way], [leader]
    if way == "job":
        receivers = [process.pid for process in session_processes(leader)]
    for receiver in receivers:
        with suppress(ProcessLookupError):
            (os.killpg if way == "group" else os.kill)(receiver, number)
    if way == "Ctrl-C twice":
        time.sleep(0.3)
        with suppress(ProcessLookupError):
            os.kill(leader, number)


def check_whole(out: Path) -> None:
    """Everything that bears a final name is whole."""
    for path in out.rglob("*"):
        # Ray Tune's own files, some of them pickles by the name of JSON, are deleted with the sweep's end.
        if not path.is_file() or PARTIAL_MARK in str(path) or "ray_tune" in path.parts:
            continue
        if path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npy":
            np.load(path)
        elif path.suffix in (".jpg", ".png"):
            assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, path
