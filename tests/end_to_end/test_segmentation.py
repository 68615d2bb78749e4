"""Raw segmentation sets → shards → training → evaluation → registry → prediction, as a user goes."""

from io import BytesIO
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datasets_prep.synthetic import write_dataset
from dpt.predict.colours import class_colours
from pipelines.cli import evaluate as cli_evaluate
from pipelines.terminal import PlainConsole
from tests.support.commands import dpt
from tests.support.tracked import find_run

pytestmark = pytest.mark.long

TINY = (
    "model.name=dpt_tiny", "model.pretrained=false", "segmentation.resize=64", "batch_size=4", "crop=64",
    "precision=float32", "loader_workers=0", "log_every=2", "validate_every=3", "checkpoint_every=3",
)  # fmt: skip


@pytest.fixture
def place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two raw segmentation sets."""
    # Wide enough that no line of a table is broken.
    monkeypatch.setattr(cli_evaluate, "console", PlainConsole(width=160))
    for name in ("ade20k", "pascal_context_59"):
        write_dataset(name, Path("raw") / name, scenes=8, height=60, width=80)
    return place


def metrics(run: str) -> dict[str, float]:
    return dict(find_run(run).data.metrics)


def test_the_whole_way(place, capsys):
    for name in ("ade20k", "pascal_context_59"):
        settings = ("--config", "ade20k", "samples_per_shard=4")
        assert dpt("prepare", name, "--raw", f"raw/{name}", "--out", "shards", *settings) == 0
    ade20k, pascal = ("--data", "shards/ade20k"), ("--data", "shards/pascal_context_59")
    arguments = ("--name", "ade", "--task", "segmentation", *TINY, "steps=6")
    assert dpt("train", *ade20k, *arguments, "-v") == 0
    out = capsys.readouterr().out
    assert "schedule: poly" in out  # the paper's settings for the task
    assert "step 6/6  mIoU" in out
    logged = metrics("ade")
    miou, mean, accuracy, images = (
        logged[f"segmentation/{name}"]
        for name in ("miou/ade20k", "miou/mean", "pix_acc/ade20k", "images/ade20k")
    )
    assert 0 <= miou == mean <= accuracy <= 1
    assert images == 2
    assert dpt("publish", "ade", "--name", "dpt-ade20k", "--alias", "champion") == 0

    # Pascal Context goes on from the model of ADE20K that the registry holds.
    arguments = ("--name", "pascal", "--config", "pascal_context", *TINY[2:], "steps=3", "workers=2")
    assert dpt("train", *pascal, *arguments) == 0
    assert 0 <= metrics("pascal")["segmentation/miou/pascal_context_59"] <= 1
    capsys.readouterr()

    scales = ("inference.scales=[0.5,1.0]", "workers=2")
    assert dpt("evaluate", *ade20k, "--model", "models:/dpt-ade20k@champion", *scales) == 0
    table = capsys.readouterr().out
    assert "Table 4" in table
    assert "ours, on 2 images" in table
    run = "evaluate models:/dpt-ade20k@champion"
    assert metrics(run)["segmentation/images/ade20k"] == 2
    assert f"{100 * metrics(run)['segmentation/miou/ade20k']:.2f}" in table
    assert {path.name for path in Path("mlruns").rglob("classes/*")} == {"ade20k.csv", "ade20k.png"}
    assert dpt("evaluate", *pascal, "--model", "models:/dpt-ade20k@champion") == 1
    assert "not the 59 of pascal_context_59" in capsys.readouterr().err
    assert dpt("promote", "dpt-ade20k", "1", "--alias", "best", "--metric", "segmentation/miou/mean") == 0

    photo = next(Path("raw/ade20k").rglob("images/validation/*.jpg"))
    image = cv2.imread(str(photo))
    arguments = ("--model", "models:/dpt-ade20k@champion", photo, "--out", "predictions")
    assert dpt("predict", *arguments) == 0
    assert "%" in capsys.readouterr().out.splitlines()[-2]  # the largest classes and their shares
    classes = np.load(f"predictions/{photo.stem}.npy")
    assert (classes.dtype, classes.shape) == (np.uint8, image.shape[:2])
    with Image.open(f"predictions/{photo.stem}.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), classes)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), class_colours()[classes])
    laid_over = cv2.imread(f"predictions/{photo.stem}_colour.png").astype(int)
    assert np.abs(laid_over - (image + class_colours()[classes][..., ::-1].astype(int)) / 2).max() <= 1

    sent = pd.DataFrame({"image": [photo.read_bytes()]})
    served = mlflow.pyfunc.load_model("models:/dpt-ade20k@champion").predict(sent)["classes"][0]
    assert (np.load(BytesIO(served)) == classes).mean() > 0.99


def test_what_does_not_go_together_is_said_in_one_line(place, capsys):
    assert dpt("prepare", "ade20k", "--raw", "raw/ade20k", "--out", "shards", "resize=none") == 0
    capsys.readouterr()
    segmenting = ("--task", "segmentation")
    for arguments, message in (
        (TINY[:2], "ade20k has labels as ground truth, depth maps are needed here"),
        (("--task", "segmentatoin"), "train.task: input should be 'depth'"),
        ((*segmenting, *TINY, "crop=[64,96]"), "crop: (64, 96) must be square"),
        ((*segmenting, "segmentation.rescale=[2,1]"), "segmentation.rescale: (2.0, 1.0)"),
    ):
        assert dpt("train", "--data", "shards/ade20k", "--name", "x", *arguments) == 1
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
