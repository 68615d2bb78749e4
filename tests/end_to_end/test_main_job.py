"""Raw files → shards → training → registry → prediction, through the command line, as a user goes."""

from io import BytesIO
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from datasets_prep.manifest import open_dataset
from pipelines.tracking import runs as tracking
from tests.support.commands import dpt
from tests.support.tracked import curve, find_run

pytestmark = pytest.mark.long

TINY = (
    *("model.name=dpt_tiny", "model.pretrained=false", "batch_size=4", "crop=64", "precision=float32"),
    *("loader_workers=0", "log_every=2", "validate_every=4", "checkpoint_every=4"),
    *("optimizer.backbone_lr=1e-3", "optimizer.decoder_lr=1e-3"),
)


def test_the_whole_way(place, raw_folder, capsys):
    settings = ("side=64", "samples_per_shard=8", "validation_share=0.25")
    for name in ("redweb", "tartanair"):
        assert dpt("prepare", name, "--raw", raw_folder / name, "--out", "shards", *settings) == 0
    assert "15 train, 5 val, 0 quarantined" in capsys.readouterr().out

    training = ("train", "--data", "shards", "--name", "first", *TINY, "steps=8")
    assert dpt(*training) == 0
    out = capsys.readouterr().out
    for text in ("steps: 8", "step 8/8  loss", "AbsRel"):
        assert text in out

    run = find_run("first")
    assert (run.info.status, run.data.params["model.name"]) == ("FINISHED", "dpt_tiny")
    assert run.data.params["steps"] == "8"
    assert [step for step, _ in curve(run)] == [2, 4, 6, 8]
    for metric in (
        "relative/abs_rel/redweb",
        "relative/abs_rel/tartanair",
        "relative/abs_rel/mean",
        "relative/delta1/redweb",
        "share/redweb",
    ):
        assert np.isfinite(run.data.metrics[metric]), metric
    inputs = {name: dataset.digest for name, dataset in tracking.data_of(run).items()}
    digests = {name: open_dataset(f"shards/{name}").manifest.digest for name in ("redweb", "tartanair")}
    assert inputs == {name: digest[:32] for name, digest in digests.items()}
    artifacts = {item.path for item in MlflowClient().list_artifacts(run.info.run_id)}
    assert {"train.yaml", "predictions"} <= artifacts

    assert dpt(*training) == 1
    assert "run first exists" in capsys.readouterr().err
    assert dpt(*training, "seed=1", "--resume") == 1
    assert "run first was started differently: config.seed: 0 → 1" in capsys.readouterr().err

    assert dpt("publish", "first", "--name", "dpt", "--alias", "champion") == 0
    assert "models:/dpt@champion is now version 1" in capsys.readouterr().out

    assert dpt("evaluate", "--data", "shards", "--model", "models:/dpt@champion", "side=64") == 0
    table = capsys.readouterr().out
    assert "redweb" in table
    assert "tartanair" in table

    photo = next((raw_folder / "redweb" / "Imgs").iterdir())
    height, width = cv2.imread(str(photo)).shape[:2]
    assert dpt("predict", "--model", "models:/dpt@champion", photo, "--out", "predictions") == 0
    inverse_depth = np.load(f"predictions/{photo.stem}.npy")
    assert (inverse_depth.shape, inverse_depth.dtype) == ((height, width), np.float32)
    stretched = cv2.imread(f"predictions/{photo.stem}.png", cv2.IMREAD_UNCHANGED)
    assert (stretched.dtype, stretched.shape) == (np.uint16, (height, width))
    assert (stretched.min(), stretched.max()) == (0, 65535)
    assert cv2.imread(f"predictions/{photo.stem}_colour.png").shape == (height, width, 3)

    sent = pd.DataFrame({"image": [photo.read_bytes()]})
    served = mlflow.pyfunc.load_model("models:/dpt@champion").predict(sent)["inverse_depth"][0]
    np.testing.assert_allclose(np.load(BytesIO(served)), inverse_depth, rtol=1e-4, atol=1e-5)
    kinds = {path.suffix for path in Path("mlruns").rglob("*")}
    assert ".safetensors" in kinds
    assert kinds.isdisjoint({".pkl", ".pickle", ".pt", ".pth"})


def test_a_run_whose_losses_are_no_use_ends_naming_the_samples(place, shards_folder, capsys):
    hopeless = ("max_loss=1e-9", "max_skipped=3", "steps=50")
    arguments = ("train", "--data", shards_folder, "--name", "hopeless", *TINY, *hopeless)
    assert dpt(*arguments) == 1
    said = capsys.readouterr()
    assert "step 1 skipped: loss out of bounds, samples " in said.out
    assert "3 steps in a row were skipped; their samples: " in said.err
    run = find_run("hopeless")
    assert (run.info.status, run.data.metrics["skipped_steps"]) == ("FAILED", 2)
