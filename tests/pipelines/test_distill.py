"""`dpt distill`: its children in MLflow, lineage, resuming. Training and evaluation are stand-ins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import pipelines.distill as module
from datasets_prep.manifest import open_dataset
from pipelines.config import Experiment, LabelConfig, TrainConfig
from pipelines.distill import JobExists, Request, distill, student_config
from pipelines.label import LabelJob
from pipelines.publish import publish
from pipelines.tracking import runs as tracking
from pipelines.train import TrainingFailed, TrainResult
from tests.support.labelling import SMALL, blurred, labelled, save, saved_model

VIEWS = {"mirror": False, "second_scale": None}


class Stage:
    """What the stand-ins did: runs that were trained, models that were evaluated, datasets labelled."""

    def __init__(self, folder: Path) -> None:
        self.model = saved_model(folder / "student")
        self.trained: list[tuple[str, list[str], TrainConfig]] = []
        self.evaluated: list[str] = []
        self.labelled: list[str] = []
        self.errors: Iterator[float] = iter(())
        self.fails = False

    def train(self, config: TrainConfig, data: list[str], name: str, *_: Any, **more: Any) -> TrainResult:
        if self.fails:
            raise TrainingFailed("the power went")
        self.trained.append((name, data, config))
        datasets = [open_dataset(uri) for uri in data]
        run = tracking.start_run(name, "train", config, datasets, more["tags"])
        with tracking.finishing(run):
            return TrainResult(run, "checkpoint", tracking.log_model(run, self.model))

    def evaluate(self, *_: Any) -> dict[str, dict[str, float]]:
        self.evaluated.append("")
        return {"redweb": {"abs_rel": next(self.errors)}}

    def label(self, job: LabelJob) -> Iterator[Any]:
        self.labelled.append(job.plan.recorded["model"])
        labelled(job)
        yield from ()


@pytest.fixture
def stage(tmp_path: Path, mlflow_database: str, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Stand-ins; a registered teacher, `models:/dpt@champion`."""
    made = Stage(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "train", made.train)
    monkeypatch.setattr("pipelines.evaluate.evaluate", made.evaluate)
    monkeypatch.setattr(LabelJob, "run", lambda job, say: made.label(job))
    teacher = tracking.start_run("teacher", "train", TrainConfig(), [])
    tracking.log_model(teacher, saved_model(tmp_path / "teacher"))
    teacher.finish("FINISHED")
    publish(teacher.run_id, "dpt", "champion")
    for number in range(3):
        save(tmp_path / f"photos/{number}.png", blurred(number))
    return made


def request(shards_folder: Path, tmp_path: Path, rounds: int = 1) -> Request:
    experiment = Experiment(label=LabelConfig(**SMALL, **VIEWS), train=TrainConfig(steps=3))
    data, out, runs = str(shards_folder), str(tmp_path / "out"), str(tmp_path / "runs")
    return Request(experiment, [str(tmp_path / "photos")], [data], "web", out, runs, "dpt", rounds)


@pytest.mark.heavy
def test_a_round_is_one_run_with_children_and_lineage(stage, shards_folder, tmp_path, capsys):
    stage.errors = iter((0.2, 0.1))
    lines: list[str] = []
    [result] = distill(request(shards_folder, tmp_path), "models:/dpt@champion", lines.append)
    assert capsys.readouterr() == ("", ""), "MLflow prints nothing of its own"
    assert lines == [
        "round 1 of 1: models:/dpt/1 teaches",
        "web_1: labelling 3 pictures",
        "evaluating teacher and student",
        "registering the student as a version of dpt",
        "round 1: AbsRel 0.1000 of the student, 0.2000 of the teacher; version 2 of dpt",
    ]
    assert (result.teacher, result.student, result.version) == ("models:/dpt/1", "models:/dpt/2", 2)
    assert (result.teacher_error, result.student_error, result.better) == (0.2, 0.1, "models:/dpt/2")
    client, (parent,) = MlflowClient(), tracking.search_runs("tags.job = 'distill'")
    children = {run.info.run_name: run for run in tracking.search_runs(f"tags.`{tracking.PARENT}` LIKE '%'")}
    assert {run.data.tags[tracking.PARENT] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    evaluations = [name for name in children if name.startswith("evaluate models:/")]
    assert (set(children) - set(evaluations), len(evaluations)) == ({"label web_1", "web_1"}, 2)
    # teacher version ← shards ← student version
    version = client.get_model_version_by_alias("dpt", "challenger")
    assert (int(version.version), version.run_id) == (2, children["web_1"].info.run_id)
    inputs = {one.dataset.name: one.dataset for one in children["web_1"].inputs.dataset_inputs}
    assert set(inputs) == {"redweb", "tartanair", "web_1"}
    shards = open_dataset(str(tmp_path / "out/web_1"))
    assert inputs["web_1"].digest == shards.manifest.digest[:32]
    assert version.tags["pseudo_labels"] == shards.manifest.digest
    assert (shards.manifest.settings["model"], shards.manifest.settings["model_version"]) == ("dpt", 1)
    assert version.tags["teacher"] == "models:/dpt/1"
    assert parent.data.metrics == {"teacher_abs_rel": 0.2, "student_abs_rel": 0.1}
    assert children["label web_1"].data.metrics["pictures"] == 3


@pytest.mark.heavy
def test_what_is_done_is_not_done_again(stage, shards_folder, tmp_path):
    stage.errors = iter((0.2, 0.1))
    stage.fails = True
    job = request(shards_folder, tmp_path)
    with pytest.raises(TrainingFailed):
        distill(job, "models:/dpt@champion", print)
    assert tracking.search_runs("tags.job = 'distill'")[0].info.status == "FAILED"
    stage.fails = False
    # The alias moves meanwhile; the job keeps its teacher.
    before = distill(job, "models:/dpt@champion", print)
    MlflowClient().set_registered_model_alias("dpt", "champion", "2")
    assert distill(job, "models:/dpt@champion", print) == before
    assert (len(stage.trained), len(stage.evaluated)) == (1, 2)
    assert len(tracking.search_runs("tags.job = 'distill'")) == 1
    assert int(MlflowClient().get_registered_model("dpt").aliases["challenger"]) == 2
    with pytest.raises(JobExists, match=r"web was started with --model models:/dpt@champion: choose"):
        distill(job, str(tmp_path / "teacher"), print)


@pytest.mark.heavy
@pytest.mark.parametrize(("errors", "second"), [((0.2, 0.1, 0.05), 2), ((0.1, 0.2, 0.3), 1)])
def test_the_better_model_teaches_the_next_round(stage, shards_folder, tmp_path, errors, second):
    stage.errors = iter(errors)
    results = distill(request(shards_folder, tmp_path, rounds=2), "models:/dpt@champion", print)
    assert [result.teacher for result in results] == ["models:/dpt/1", f"models:/dpt/{second}"]
    assert [result.version for result in results] == [2, 3]
    assert results[1].teacher_error == min(errors[:2])
    names = [[uri.split("/")[-2] for uri in data] for _, data, _ in stage.trained]
    assert names == [["redweb", "tartanair", "web_1"], ["redweb", "tartanair", "web_2"]]


def test_pseudo_labels_are_trained_as_in_depth_anything():
    config = student_config(TrainConfig(), "web_1")
    assert config.perturb.datasets == ("web_1",)
    assert config.loss.trims == {"web_1": 0.1}
    assert config.loss.gradient_weights == {"web_1": 0.0}
    own = TrainConfig.model_validate({"loss": {"trims": {"web_1": 0.3}}, "perturb": {"datasets": ["old"]}})
    config = student_config(own, "web_1")
    assert config.loss.trims == {"web_1": 0.3}
    assert config.perturb.datasets == ("old", "web_1")
