import io
from contextlib import nullcontext
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

import dpt
from datasets_prep.manifest import open_datasets
from dpt.predict.depth import predict_inverse_depth
from pipelines.config import TrainConfig
from pipelines.publish import publish
from pipelines.tracking import runs as tracking
from pipelines.tracking.model_reference import model_files


@pytest.fixture
def run(mlflow_database: str, shards_folder: Path) -> tracking.Run:
    return tracking.start_run("mine", "train", TrainConfig(), open_datasets([str(shards_folder)]))


def test_a_run_says_what_it_was(run):
    stored = MlflowClient(run.tracking_uri).get_run(run.run_id)
    assert stored.data.params["optimizer.decoder_lr"] == "0.0001"
    assert stored.data.tags["version.torch"].startswith("2.")
    assert stored.data.tags["git_commit"]
    assert {entry.dataset.name for entry in stored.inputs.dataset_inputs} == {"redweb", "tartanair"}
    assert stored.info.status == "RUNNING"


def test_metrics_and_pictures_arrive(run):
    run.log_metrics({"loss": 0.5, "relative/abs_rel/redweb": 0.25}, step=3)
    run.log_metrics({"loss": 0.4}, step=4)
    assert run.metrics() == {"loss": 0.4, "relative/abs_rel/redweb": 0.25}
    run.log_picture(np.zeros((8, 8, 3), np.uint8), "predictions/step_3.png")
    (artifact,) = MlflowClient().list_artifacts(run.run_id, "predictions")
    assert artifact.path == "predictions/step_3.png"


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_ends_as_its_block_does(run, error, status):
    with pytest.raises(error) if error else nullcontext(), tracking.finishing(run):
        if error is not None:
            raise error
    assert MlflowClient().get_run(run.run_id).info.status == status


def test_a_published_model_is_found_by_its_alias_which_can_move(run, tmp_path):
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    tracking.log_model(run, tmp_path / "model")
    first, second = publish("mine", "dpt", "champion"), publish(run.run_id, "dpt", "champion")
    assert (first.version, second.version) == (1, 2)
    assert second.uri == "models:/dpt@champion"
    folders = (tracking.fetch_model("models:/dpt@champion"), tmp_path / "model")
    fetched, saved = ((folder / "weights.safetensors").read_bytes() for folder in folders)
    assert fetched == saved
    assert tracking.fetch_model("models:/dpt/1").is_dir()
    assert MlflowClient().get_model_version_by_alias("dpt", "champion").version in {2, "2"}


def test_a_registered_checkpoint_is_what_inference_needs_and_nothing_else(run, tmp_path):
    folder = tmp_path / "step_00000007"
    dpt.save_model(dpt.create_model("dpt_tiny"), folder)
    for name in ("optimizer.safetensors", "trained.safetensors", "state.json"):
        (folder / name).write_bytes(b"of training")
    with model_files(str(folder)) as kept:
        tracking.log_model(run, kept)
    model = tracking.fetch_model(publish("mine", "dpt", None).uri)
    files = list(model.iterdir())
    assert {file.name for file in files} == {"config.json", "weights.safetensors"}
    assert all(file.read_bytes() == (folder / file.name).read_bytes() for file in files)
    folders = [path.parent for path in Path(model).parents[1].rglob("*.safetensors")]
    assert folders == [model]


@pytest.mark.parametrize(("settings", "column", "unit", "words"), [
    ({"invert": True, "scale": 0.3, "shift": 0.2}, "depth", "m", "depth in metres"),
    ({"scale": 0.3, "shift": 0.2}, "inverse_depth", "1/m", "inverse depth in 1/metres, larger is nearer"),
    ({"task": "segmentation", "classes": 3, "batch_norm": True}, "classes", "class", "indices of 3 classes"),
])  # fmt: skip
def test_a_registered_model_says_what_it_predicts(run, tmp_path, settings, column, unit, words):
    model = dpt.create_model("dpt_tiny", **settings).eval()
    dpt.save_model(model, tmp_path / "model")
    tracking.log_model(run, tmp_path / "model")
    published = publish("mine", "metres", None)
    version = MlflowClient().get_model_version("metres", str(published.version))
    assert (version.tags["quantity"], version.tags["unit"]) == (column, unit)
    assert version.description == f"Predicts {words}."
    served = mlflow.pyfunc.load_model(published.uri)
    assert served.metadata.signature.outputs.input_names() == [column]
    assert served.metadata.metadata["predicts"] == words
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    found = served.predict(pd.DataFrame({"image": [png.getvalue()]}))
    assert list(found) == [column]
    if column != "classes":
        values = np.load(io.BytesIO(found[column][0]))
        np.testing.assert_allclose(values, predict_inverse_depth(model, image), rtol=1e-4)


def test_a_served_model_that_predicts_nothing_finite_says_for_which_row(run, tmp_path):
    model = dpt.create_model("dpt_tiny").eval()
    with torch.no_grad():
        model.head.conv3.bias.fill_(torch.nan)
    dpt.save_model(model, tmp_path / "model")
    served = mlflow.pyfunc.load_model(tracking.log_model(run, tmp_path / "model"))
    png = io.BytesIO()
    Image.new("RGB", (32, 32)).save(png, "PNG")
    with pytest.raises(ValueError, match="image of row 0: the model predicts no finite number"):
        served.predict(pd.DataFrame({"image": [png.getvalue()]}))


def test_what_is_not_there_is_refused(run):
    with pytest.raises(tracking.TrackingError, match="no run 'yours'"):
        tracking.find_run("yours")
    with pytest.raises(tracking.TrackingError, match=r"run mine .* has logged no model"):
        publish("mine", "dpt", "champion")
    with pytest.raises(tracking.TrackingError, match=r"models:/dpt@champion: .*not found"):
        tracking.fetch_model("models:/dpt@champion")


def test_a_server_that_does_not_answer_is_named_at_once(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(tracking.TrackingError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        tracking.connect()
