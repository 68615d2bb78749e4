"""`dpt evaluate --on`: its words, and a whole run of it."""

import csv
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient

import dpt
from datasets_prep.errors import UserError
from datasets_prep.formats import pictures as formats
from datasets_prep.synthetic import write_dataset
from pipelines.cli.evaluate import spread
from pipelines.submit import job_targets
from pipelines.zero_shot.protocol import METRICS
from tune import cli

ONE_EACH = ["--on", "diw", "--on", "nyu", "--raw", "/data", "--raw", "nyu=/n"]


@pytest.mark.parametrize(("words", "expected"), [
    (["--on", "diw", "nyu", "--raw", "/data", "nyu=/n"], ONE_EACH),
    (ONE_EACH, ONE_EACH),
    (["--on", "diw", "side=384", "-m", "x"], ["--on", "diw", "side=384", "-m", "x"]),
    (["--raw", "/data", "nyu=/n", "side=64"], ["--raw", "/data", "--raw", "nyu=/n", "side=64"]),
    (["--raw", "/odd=name", "seed=1"], ["--raw", "/odd=name", "seed=1"]),
    (["--data", "a", "side=64", "rule=minimal"], ["--data", "a", "side=64", "rule=minimal"]),
])  # fmt: skip
def test_options_take_several_words(words, expected):
    assert spread(words) == expected


def test_a_job_reads_every_raw_folder():
    parameters = {"raw": ["/data", "nyu=s3://bucket/nyu"], "model": "/m", "out": "/o"}
    targets = job_targets("evaluate", parameters, {"MLFLOW_TRACKING_URI": "http://mlflow.example"})
    assert targets.reads == ["/data", "s3://bucket/nyu", "/m"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_dataset("diw", root / "diw", scenes=3, height=48, width=64)
    write_dataset("tum", root / "tum", scenes=1, height=48, width=64)
    return root


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    return "model"


def run(*words: str) -> None:
    cli.app(["evaluate", *words], standalone_mode=False)


def test_a_whole_run(ray_session, mlflow_database, raw, model, capsys):
    sets = ("--on", "tum", "diw", "--raw", str(raw), "worst=2", "resamples=50")
    with pytest.raises(UserError, match=r"(?s)^diw: 2 images are there.*\ntum: 5 images.*--allow-missing"):
        run("--model", model, *sets)
    assert not Path("evaluation").exists()
    capsys.readouterr()

    run("--model", model, *sets, "--allow-missing")
    said = capsys.readouterr().out
    assert "tum: 5 of 1815 images, read as tum from" in said
    assert "2 of 74441" in said
    assert "Changes are relative to MiDaS, MIX 5, as in Table 1." in said

    table = pq.read_table("evaluation/per_image.parquet")
    assert table.column("dataset").to_pylist() == ["diw"] * 2 + ["tum"] * 5
    assert {"sample_id", "scale", "shift", "valid_pixels", *METRICS} <= set(table.column_names)
    for name in ("diw", "tum"):
        assert formats.decode_rgb(Path(f"evaluation/worst_{name}.png").read_bytes()).size
    markdown = Path("evaluation/table.md").read_text()
    assert "| paper: DPT-Large, MIX 6 | 10.82 (-13.2%) | 9.97 (-30.3%) | -21.8% |" in markdown
    lines = csv.DictReader(Path("evaluation/table.csv").read_text().splitlines())
    [ours] = [line for line in lines if (line["method"], line["dataset"]) == (model, "tum")]
    tum = table.slice(2)
    mean = 100 * sum(tum.column("delta1_error").to_pylist()) / 5
    assert float(ours["value"]) == pytest.approx(mean)
    assert float(ours["change_percent"]) == pytest.approx(100 * (mean / 14.29 - 1))
    assert float(ours["low"]) <= mean <= float(ours["high"])
    assert (ours["images"], ours["of"]) == ("5", "1815")

    mlflow.set_tracking_uri(mlflow_database)
    experiment = mlflow.get_experiment_by_name("dpt")
    [logged] = MlflowClient().search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["zero_shot/delta1_error/tum"] == pytest.approx(mean / 100)
    names = {"zero_shot/whdr/diw", "zero_shot/images/diw", "zero_shot/change_percent/mean"}
    assert names <= logged.data.metrics.keys()
    assert {entry.dataset.name for entry in logged.inputs.dataset_inputs} == {"diw", "tum"}
    files = {Path(item.path).name for item in MlflowClient().list_artifacts(logged.info.run_id, "zero_shot")}
    expected = {"per_image.parquet", "table.csv", "table.md", "worst_diw.png", "worst_tum.png"}
    assert files == expected == {path.name for path in Path("evaluation").iterdir()}


def test_a_model_stands_beside_the_mean_map(ray_session, mlflow_database, shards_folder, model, capsys):
    run("--baseline", "mean-map", "--data", str(shards_folder))
    run("--model", model, "--data", str(shards_folder), "side=64")
    said = capsys.readouterr().out
    experiment = mlflow.get_experiment_by_name("dpt")
    found, alone = (one.data.metrics for one in MlflowClient().search_runs([experiment.experiment_id]))
    for name in ("redweb", "tartanair"):
        baseline = alone[f"relative/abs_rel/{name}"]
        assert found[f"relative/mean_map_abs_rel/{name}"] == pytest.approx(baseline, rel=1e-9)
        skill = 1 - found[f"relative/abs_rel/{name}"] / baseline
        assert found[f"relative/skill/{name}"] == pytest.approx(skill)
        assert said.count(f"{baseline:.4f}") >= 2, "in both tables"
    both = [found[f"relative/skill/{name}"] for name in ("redweb", "tartanair")]
    assert found["relative/skill/mean"] == pytest.approx(sum(both) / 2)
    assert "relative/skill/mean" not in alone


def test_what_does_not_go_together_is_said(raw, model):
    with pytest.raises(UserError, match=r"^give either --model MODEL or --baseline mean-map$"):
        run("--on", "diw", "--raw", str(raw))
    with pytest.raises(UserError, match=r"^give either --model MODEL or --baseline mean-map$"):
        run("--model", model, "--baseline", "mean-map", "--data", str(raw))
    with pytest.raises(UserError, match=r"^--baseline goes with --data: raw sets have no training split"):
        run("--baseline", "mean-map", "--on", "diw", "--raw", str(raw))
    with pytest.raises(UserError, match=r"^--baseline: there is no 'mean'; the only one is mean-map$"):
        run("--baseline", "mean", "--data", str(raw))
    with pytest.raises(UserError, match="--protocol: there is no 'metrik'; choose from"):
        run("--model", model, "--on", "diw", "--raw", str(raw), "--protocol", "metrik")
    with pytest.raises(UserError, match="no evaluation set 'dew'"):
        run("--model", model, "--on", "dew", "--raw", str(raw))
