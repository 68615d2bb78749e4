import base64
import io
import json
import platform
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server
from PIL import Image

import dpt
from datasets_prep.manifest import open_datasets
from datasets_prep.strict_yaml import load_yaml
from dpt.predict.depth import predict_inverse_depth
from pipelines.config import EvaluateConfig, ModelSection, TrainConfig, TuneConfig
from pipelines.publish import publish
from pipelines.tracking import origin
from pipelines.tracking import runs as tracking
from pipelines.tracking.model_reference import model_files
from tests.support.documents import README


@pytest.fixture
def run(mlflow_database: str, shards_folder: Path) -> tracking.Run:
    return tracking.start_run("mine", "train", TrainConfig(), open_datasets([str(shards_folder)]))


def test_a_run_says_what_it_was(run):
    stored = MlflowClient(run.tracking_uri).get_run(run.run_id)
    assert stored.data.params["optimizer.decoder_lr"] == "0.0001"
    assert stored.data.tags["version.torch"].startswith("2.")
    assert stored.data.tags["git_commit"]
    assert stored.info.status == "RUNNING"


def test_a_run_says_who_started_it_where_and_by_which_command(mlflow_database, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setattr("sys.argv", ["/usr/bin/dpt", "train", "--name", "my run"])
    job = {"metadata": {"job_submission_id": "raysubmit_7", "git_commit": "0a1b"}, "runtime_env": {}}
    monkeypatch.setattr(origin, "source_commit", lambda: "0a1b-dirty")
    for given, kind in (("{}", "LOCAL"), (json.dumps(job), "JOB")):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", given)
        run = tracking.start_run("mine", "train", TrainConfig(), [])
        tags = MlflowClient().get_run(run.run_id).data.tags
        assert tags["mlflow.source.type"] == kind
    assert (tags["mlflow.user"], tags["host"], tags["ray_job"]) == ("ada", platform.node(), "raysubmit_7")
    assert tags["mlflow.source.name"] == "dpt train --name 'my run'"
    assert tags["mlflow.project.entryPoint"] == "train"
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == ("0a1b", "true")


@pytest.mark.parametrize(("job", "config", "contexts"), [
    ("train", TrainConfig(), {"train", "validation"}),
    ("train", TrainConfig(val_split="none"), {"train"}),
    ("tune", TuneConfig(), {"train"}),
    ("evaluate", EvaluateConfig(), {"evaluation"}),
])  # fmt: skip
def test_a_run_says_what_it_reads_each_dataset_for(mlflow_database, shards_folder, job, config, contexts):
    datasets = open_datasets([str(shards_folder)])
    run = tracking.start_run("mine", job, config, datasets)
    for _ in range(2):
        stored = MlflowClient().get_run(run.run_id)
        found = [
            (entry.dataset.name, tag.value)
            for entry in stored.inputs.dataset_inputs
            for tag in entry.tags
            if tag.key == "mlflow.data.context"
        ]
        assert sorted(found) == sorted((d.name, context) for d in datasets for context in contexts)
        digests = {name: dataset.digest for name, dataset in tracking.data_of(stored).items()}
        assert digests == {d.name: d.manifest.digest[:32] for d in datasets}
        tracking.describe_run(run, job, config, datasets)


@pytest.mark.parametrize(("config", "task", "there", "others"), [
    (TrainConfig(), None, "loss.trim", "metric_depth. segmentation."),
    (TrainConfig(task="metric_depth"), None, "metric_depth.cap", "loss. segmentation. caps."),
    (TrainConfig(task="segmentation"), None, "segmentation.resize", "loss. metric_depth. optimizer.betas"),
    (TrainConfig(model=ModelSection(start="models:/dpt/1")), None, "model.start", "model.name"),
    (EvaluateConfig(), "segmentation", "inference.scales", "caps."),
    (EvaluateConfig(), "depth", "caps.metres", "inference."),
])  # fmt: skip
def test_only_parameters_that_matter_to_the_task_are_logged(mlflow_database, config, task, there, others):
    run = tracking.start_run("mine", "job", config, [], task=task)
    logged = MlflowClient().get_run(run.run_id).data.params
    assert there in logged
    assert [key for key in logged if key.startswith(tuple(others.split()))] == []
    whole = mlflow.artifacts.download_artifacts(f"runs:/{run.run_id}/job.yaml")
    assert config == type(config)(**load_yaml(Path(whole).read_bytes()))


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


@pytest.mark.heavy
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


@pytest.mark.heavy
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


@pytest.mark.heavy
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
    assert version.description.startswith(f"Predicts {words}.")
    served = mlflow.pyfunc.load_model(published.uri)
    assert served.metadata.signature.outputs.input_names() == [column, "unit", "error"]
    assert served.metadata.metadata["predicts"] == words
    found = served.predict(pd.DataFrame({"image": [png()]}))
    assert list(found) == [column, "unit", "error"]
    assert (found.unit[0], found.error[0]) == (unit, None)
    if column != "classes":
        values = np.load(io.BytesIO(found[column][0]))
        image = np.asarray(Image.open(io.BytesIO(png())))
        np.testing.assert_allclose(values, predict_inverse_depth(model, image), rtol=1e-4)


def png(width: int = 60, height: int = 40) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> mlflow.pyfunc.PyFuncModel:
    """A model of relative inverse depth as a server loads it."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        dpt.save_model(dpt.create_model("dpt_tiny"), folder / "model")
        run = tracking.start_run("served", "train", TrainConfig(), [])
        return mlflow.pyfunc.load_model(tracking.log_model(run, folder / "model"))


def answer(model: mlflow.pyfunc.PyFuncModel, body: object) -> list[dict[str, str | None]]:
    """What MLflow's scoring server answers to a JSON `body`; `model` is what it has loaded."""
    schema = model.metadata.get_input_schema()
    response = scoring_server.invocations(json.dumps(body), "application/json", model, schema)
    return json.loads(response.response)["predictions"]


@pytest.mark.parametrize("body", [
    lambda a, b: {"dataframe_split": {"columns": ["image"], "index": [4, 7], "data": [[a], [b]]}},
    lambda a, b: {"dataframe_records": [{"image": a}, {"image": b}]},
    lambda a, b: {"inputs": {"image": [a, b]}},
    lambda a, b: {"inputs": [{"image": a}, {"image": b}]},
    lambda a, b: {"inputs": [a, f"data:image/png;base64,{b}"]},
    lambda a, b: {"instances": [{"image": f"{a[:76]}\n{a[76:]}"}, {"image": b}]},
])  # fmt: skip
def test_every_form_of_a_request_is_answered_alike(served, body):
    small, large = (base64.b64encode(png(*size)).decode() for size in ((48, 32), (60, 40)))
    first, second = answer(served, body(small, large))
    for row, shape in ((first, (32, 48)), (second, (40, 60))):
        values = np.load(io.BytesIO(base64.b64decode(row["inverse_depth"])))
        assert (values.shape, values.dtype, row["unit"], row["error"]) == (shape, "float32", "relative", None)


def test_the_request_of_the_readme_is_answered(served):
    [line] = re.findall(r'^echo "(.*)" \| curl ', README.read_text(encoding="utf-8"), re.MULTILINE)
    photo = base64.b64encode(png()).decode()
    body = re.sub(r"\$\(.*\)", photo, line.replace('\\"', '"'))
    (row,) = answer(served, json.loads(body))
    assert row["unit"] == "relative"


def test_a_row_that_is_no_image_costs_the_others_nothing_and_the_index_stays(served):
    rows = [png(), "!", base64.b64encode(b"not an image").decode(), png()[:50], None]
    found = served.predict(pd.DataFrame({"image": pd.Series(rows, list("abcde"), dtype=object)}))
    assert list(found.index) == list("abcde")
    assert np.load(io.BytesIO(found.loc["a", "inverse_depth"])).shape == (40, 60)
    assert found.error["a"] is None
    assert found.inverse_depth[1:].isna().all()
    for row, (name, reason) in enumerate([
        ("b", "not base64"), ("c", "not a readable image"), ("d", "not a readable image"),
        ("e", "expected bytes or base64"),
    ], start=1):  # fmt: skip
        assert found.error[name].startswith(f"image of row {row}: {reason}")


def test_a_models_own_example_is_answered(served):
    place = MlflowClient().get_logged_model(served.model_id).artifact_location
    example = mlflow.artifacts.download_artifacts(f"{place}/serving_input_example.json")
    (row,) = answer(served, json.loads(Path(example).read_text()))
    assert np.load(io.BytesIO(base64.b64decode(row["inverse_depth"]))).shape == (32, 48)


def test_a_served_model_that_predicts_nothing_finite_says_for_which_row(run, tmp_path):
    model = dpt.create_model("dpt_tiny").eval()
    with torch.no_grad():
        model.head.conv3.bias.fill_(torch.nan)
    dpt.save_model(model, tmp_path / "model")
    served = mlflow.pyfunc.load_model(tracking.log_model(run, tmp_path / "model"))
    found = served.predict(pd.DataFrame({"image": [png()]}))
    assert found.error[0] == "image of row 0: the model predicts no finite number"
    assert found.inverse_depth[0] is None


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


@pytest.mark.heavy
def test_a_full_artifact_store_registers_nothing_by_halves(mlflow_database, small_disk, tmp_path):
    """Neither a model of which a part was stored, nor a version without its page."""
    client, store = MlflowClient(mlflow_database), small_disk.outside / "mlruns"
    client.create_experiment(tracking.EXPERIMENT, artifact_location=store.as_uri())
    run = tracking.start_run("full", "train", TrainConfig(), [])
    dpt.save_model(dpt.create_model("dpt_tiny").eval(), tmp_path / "model")
    full = "MLflow cannot store /proc/.*: No space left on device$"
    small_disk.fill(40 * 1024)
    with pytest.raises(tracking.TrackingError, match=full), tracking.finishing(run):
        tracking.log_model(run, tmp_path / "model")
    assert client.get_run(run.run_id).info.status == "FAILED"
    with pytest.raises(
        tracking.TrackingError, match=r"run full .* has logged no model: only a part; `dpt tr"
    ):
        publish("full", "dpt", "champion")
    assert client.search_registered_models() == []

    small_disk.clear()
    uri = tracking.log_model(run, tmp_path / "model")
    small_disk.fill()
    with pytest.raises(tracking.TrackingError, match=full):
        publish("full", "dpt", "champion")
    assert client.search_model_versions("name='dpt'") == []
    assert client.get_registered_model("dpt").aliases == {}
    for write in (run.log_text, lambda text, path: run.log_picture(np.zeros((9, 9, 3), np.uint8), path)):
        with pytest.raises(tracking.TrackingError, match=r"MLflow cannot store .*a\.png.*: No space left"):
            write("text" * 9999, "a.png")

    small_disk.clear()
    version = publish("full", "dpt", "champion").version
    assert client.get_model_version("dpt", str(version)).source == uri
