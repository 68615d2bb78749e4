"""`dpt finetune` end to end: KITTI's sparse depth, NYUv2's dense depth, a user's own dataset."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import dpt
from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.manifest import open_dataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.render.scenes import render_scene
from datasets_prep.settings import IngestSettings
from datasets_prep.synthetic import write_dataset
from dpt.predict.depth import predict_inverse_depth
from pipelines.evaluation.metric_depth import decode_metric_row
from pipelines.loading.batches import evaluation_batches
from pipelines.tracking.model_reference import load_model
from tests.pipelines.evaluation.test_metric_depth import by_hand
from tests.support.commands import dpt as run
from tests.support.shards import prepare
from tests.support.tracked import find_run

pytestmark = pytest.mark.long

TINY = (
    *("batch_size=4", "crop=[64, 96]", "precision=float32", "loader_workers=0", "log_every=2"),
    *("validate_every=4", "checkpoint_every=4", "device=cpu", "steps=4"),
)
SMALL = "metric_depth.image_size=64"


@pytest.fixture
def place(place: Path) -> Path:
    """A working directory with a model of relative depth in `relative`."""
    torch.manual_seed(0)
    dpt.save_model(dpt.create_model("dpt_tiny", image_size=64), place / "relative")
    return place


@pytest.fixture(scope="session")
def kitti_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small drives in KITTI's layout, at native size: train, and test by the list in them."""
    raw, out = tmp_path_factory.mktemp("kitti-raw"), tmp_path_factory.mktemp("kitti-shards")
    write_dataset("kitti", raw, scenes=3, height=96, width=160)
    prepare(plan_ingest("kitti", str(raw), IngestSettings(resize="none", samples_per_shard=4)), str(out))
    return out


def test_kitti_becomes_metric_and_stays_so(place, kitti_shards, capsys):
    command = ("finetune", "kitti", "--data", kitti_shards, "--model", "relative", "--name", "fine")
    command += (*TINY, SMALL)
    assert run(*command) == 1
    refusal = capsys.readouterr().err
    dataset = open_dataset(str(kitti_shards / "kitti"))
    counts = dataset.manifest.samples
    assert f"{counts['train']} of 23158 train images and {counts['test']} of 652 test images" in refusal

    assert run(*command, "--allow-missing") == 0
    said = capsys.readouterr().out
    assert f"{counts['test']} of 652; Table 3" in said
    assert re.search(r"DPT-Hybrid +0\.959 +0\.995 +0\.999 +0\.062 +2\.573 +0\.092", said)
    stated = re.search(r"1/depth = (\S+) · prediction \+ (\S+)", said)
    assert stated

    # The average is in the checkpoint, and the published metrics are those of a plain computation.
    settings = json.loads((place / "runs/fine/step_00000004/config.json").read_text())
    assert (settings["invert"], settings["image_size"]) == (True, 64)
    aligned = tuple(map(float, stated.groups()))
    assert (settings["scale"], settings["shift"]) == pytest.approx(aligned, rel=1e-4)
    model = load_model("runs/fine/step_00000004")
    expected = []
    for batch in evaluation_batches(dataset, "test", 0, 0, 1, 1, decode_metric_row):
        depth = batch.target[0].numpy()
        height, width = depth.shape
        counted = np.zeros(depth.shape, bool)
        rows = slice(int(0.40810811 * height), int(0.99189189 * height))
        counted[rows, int(0.03594771 * width) : int(0.96405229 * width)] = True
        counted &= (depth > 1e-3) & (depth < 80)
        prediction = predict_inverse_depth(model, batch.images[0].numpy())
        expected.append(by_hand(prediction, depth, counted, 80.0))
    trained = find_run("fine")
    (logged,) = trained.outputs.model_outputs
    evaluated = find_run(f"evaluate models:/{logged.model_id}")
    for name in expected[0]:
        mean = float(np.mean([each[name] for each in expected]))
        # Nothing was trained after the last validation, which is of the same images.
        for found in (trained, evaluated):
            assert found.data.metrics[f"metric/{name}/kitti"] == pytest.approx(mean, rel=1e-5), name
    assert evaluated.data.metrics["metric/images/kitti"] == counts["test"]

    # Registered, fetched and used, it still gives metres.
    assert run("publish", "fine", "--name", "street", "--alias", "champion") == 0
    image = next(evaluation_batches(dataset, "test", 0, 0, 1, 1, decode_metric_row)).images[0].numpy()
    Path("photo.png").write_bytes(encode_png(image))
    command = ("predict", "photo.png", "--model", "models:/street@champion", "--out", "out")
    assert run(*command) == 0
    (written,) = Path("out").rglob("*.npy")
    np.testing.assert_allclose(np.load(written), predict_inverse_depth(model, image), rtol=1e-5)

    # The same protocol by `dpt evaluate`.
    capsys.readouterr()
    command = ("evaluate", "--data", kitti_shards, "--model", "runs/fine/step_00000004", "split=test")
    assert run(*command, "device=cpu") == 0
    assert f"{np.mean([each['abs_rel'] for each in expected]):.4f}" in capsys.readouterr().out


def test_nyu_is_dense_and_has_its_own_border(place, capsys):
    write_dataset("nyuv2", place / "raw", scenes=4, height=480, width=640)
    plan = plan_ingest("nyuv2", "raw", IngestSettings(resize="none", samples_per_shard=4))
    prepare(plan, "shards")
    command = ("finetune", "nyu", "--data", "shards", "--model", "relative", "--name", "room", *TINY, SMALL)
    assert run(*command, "--allow-missing") == 0
    said = capsys.readouterr().out
    assert "of 654; Table 2" in said
    assert json.loads((place / "runs/room/step_00000004/config.json").read_text())["invert"] is True


def write_folder(root: Path, metric: bool) -> None:
    """A user's own photos with depth in millimetres."""
    for number in range(12):
        scene = render_scene(number, 96, 128)
        for kind in ("images", "depth"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        (root / "images" / f"{number}.jpg").write_bytes(encode_jpeg(scene.image))
        depth = np.where(scene.depth < 60, 1000 * scene.depth, 0).round().astype(np.uint16)
        (root / "depth" / f"{number}.png").write_bytes(encode_png(depth))
    scale = "scale: 0.001\n" if metric else ""
    text = f"name: my_robot\nquantity: depth\nmetric: {str(metric).lower()}\n{scale}"
    (root / "dataset.yaml").write_text(text)
    (root / "splits").mkdir()
    (root / "splits" / "val.txt").write_text("3\n7\n")


def test_a_users_own_dataset_is_fine_tuned_and_resumed(place, capsys):
    write_folder(place / "robot", metric=True)
    command = ("finetune", "robot", "--model", "relative", "--name", "own", *TINY)
    assert run(*command) == 0
    assert "my_robot, val: images: 2" in capsys.readouterr().out
    # Its start is its own: the model that it came from may be gone.
    (place / "relative" / "weights.safetensors").unlink()
    (place / "runs/own/step_00000004/state.json").unlink()
    assert run(*command, "--resume") == 0
    assert "average robust alignment" not in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (("kitti", "--model", "relative"), "--data: missing, the shards of kitti"),
    (("kitti", "--model", "relative", "--data", "{metric}"), "no dataset kitti in .*; there are: tartanair"),
    (("{relative}", "--model", "relative"), r"redweb has no metric scale \(its ground truth is affine\)"),
    (("{metric}", "--model", "missing"), "no model at missing"),
    (("{metric}", "--model", "labels"), "a segmentation model, but the task is metric_depth"),
    (("{metric}",), "--model: missing, a model of relative depth"),
    (("nowhere", "--model", "relative"),
     "nowhere is not kitti, nyu, a prepared dataset or a raw dataset root"),
    (("robot", "--model", "relative"), r"my_robot has no metric scale \(its ground truth is up-to-scale\)"),
    (("{metric}", "--model", "relative", "metric_depth.kb_crop=true"), "prepare it with resize=none"),
    (("{metric}", "--model", "relative", "task=depth"), "fine-tuning is for metric_depth"),
])  # fmt: skip
def test_invalid_input_is_refused_in_one_line(place, shards_folder, capsys, arguments, message):
    if "labels" in arguments:
        dpt.save_model(dpt.create_model("dpt_tiny", task="segmentation", classes=3), place / "labels")
    if "robot" in arguments:
        write_folder(place / "robot", metric=False)
    names = {"metric": shards_folder / "tartanair", "relative": shards_folder / "redweb"}
    told = [argument.format(**names) for argument in arguments]
    assert run("finetune", *told, "--name", "bad", *TINY) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(message, said.strip().splitlines()[-1])
