"""An installation without extras: inference alone, without Ray, MLflow and Matplotlib."""

import importlib.metadata
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

import dpt
from pipelines.cli import app
from tests.support.paths import REPOSITORY

ABSENT = (
    *("OpenEXR", "blosc2", "grpc", "h5py", "matplotlib", "mlflow", "onnx", "onnxruntime", "onnxscript"),
    *("pandas", "psutil", "ray", "requests", "s3fs", "scipy", "sqlalchemy"),
)
SCRIPT = f"""
import sys
sys.modules |= dict.fromkeys({ABSENT})  # Python then says that there is no such module
sys.path.insert(0, {str(REPOSITORY)!r})
from tune.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["dpt", *line.split()]
    try:
        main()
    except SystemExit as end:
        print(f"exit code {{end.code or 0}}: {{line}}", flush=True)
"""


def run(folder, *commands: str) -> str:
    """Run command lines of `dpt`, one after the other, in a `folder`; returns all that they print."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        input="\n".join(commands),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


@pytest.mark.heavy
def test_inference_works_without_extras(tmp_path):
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 50, 3), np.uint8))
    said = run(
        tmp_path,
        "predict a.png --model model --out out --attention 3 --ply 60 --colours turbo",
        "convert model converted",
        "config train --config demo",
        "backbones convnext_atto*",
        "datasets",
        "--version",
        "--help",
    )
    assert re.findall(r"exit code (\d)", said) == ["0"] * 7, said
    assert "1 of 1 predicted" in said
    assert {"a.npy", "a.png", "a_colour.png", "a.ply"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert (tmp_path / "converted" / "config.json").is_file()


@pytest.mark.heavy
def test_what_needs_an_extra_says_which(tmp_path):
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    needing = {
        "generate redweb --out raw": "data",
        "prepare redweb --raw . --out shards": "data",
        "inspect .": "data",
        "stereo movies --videos . --out raw": "data",
        "train --data shards --name x": "train",
        "finetune kitti --name x": "train",
        "evaluate --data shards --model model": "train",
        "publish x": "train",
        "models": "train",
        "tune skip --data shards --name x": "train",
        "report x": "train",
        "demo": "train",
        "submit --address http://localhost:1 -- train --data x --name y": "train",
        "predict a.png --model models:/dpt@champion --out out": "train",
        "export model --to onnx": "export",
    }
    lines = run(tmp_path, *needing).splitlines()
    for command, extra in needing.items():
        before = lines[lines.index(f"exit code 1: {command}") - 1]
        assert f"pip install 'dpt-on-ray[{extra}]'" in before, (command, before)
    assert len(lines) == 2 * len(needing), "one line each"
    assert run(tmp_path, "predict a.png --out out").startswith("dpt: --model: missing; give a model's folder")
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left behind"


def test_a_library_of_no_extra_is_not_taken_for_one():
    error = ModuleNotFoundError("No module named 'left_pad'", name="left_pad")
    assert not app._missing_extra(error, "train")


def test_the_version_is_that_of_the_distribution():
    assert dpt.__version__ == importlib.metadata.version("dpt-on-ray")
