"""The page of a model: its numbers against arithmetic done here, and what it does with prepared images."""

import re
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset

import dpt
from datasets_prep.errors import UserError
from datasets_prep.manifest import NotADataset, PreparedDataset, open_datasets
from dpt.predict.classes import predict_classes
from pipelines.config import EvaluateConfig
from pipelines.evaluation.paper_tables import TABLE_1, TABLES
from pipelines.report.model_page import beside_the_paper, write_model_report
from pipelines.report.pictures import by_resolution, samples_of, show
from pipelines.tracking import runs as tracking
from pipelines.tracking.registry import note_protocol
from tests.support.browser import browsing
from tests.support.commands import said
from tests.support.labelled_sets import prepare, tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    dpt.save_model(dpt.create_model("dpt_tiny", image_size=64), folder)
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepare("ade20k", tmp_path_factory.mktemp("labelled"))


def evaluated(model: str, metrics: dict[str, float], official: Sequence[str] = ("eth3d",)) -> None:
    run = tracking.start_run(f"evaluate {model}", "evaluate", EvaluateConfig(), [])
    run.log_metrics(metrics, step=0)
    note_protocol(run, {}, official)
    with mlflow.start_run(run_id=run.run_id):
        for name in {key.split("/")[2] for key in metrics} - {"mean"}:
            source = resolve_dataset_source("s3://bucket/shards")
            mlflow.log_input(MetaDataset(source, name=name, digest="a1"))


def test_ours_stands_beside_the_papers_in_its_unit():
    ours = {"zero_shot/abs_rel/eth3d": 0.0884, "zero_shot/delta1_error/kitti": 0.0812, "loss": 1}
    table = beside_the_paper(TABLE_1, ours)
    assert table is not None
    ours, first = table.rows[:2]
    assert [cell.text for cell in ours[1:5]] == ["\N{EN DASH}", "0.088", "\N{EN DASH}", "8.12"]
    assert [cell.best for cell in ours[1:5]] == [False, True, False, True]
    assert [cell.text for cell in first[:3]] == ["DPT-Large, MIX 6", "10.82", "0.089"]
    assert not first[2].best
    assert first[1].best
    assert beside_the_paper(TABLE_1, {"relative/abs_rel/redweb": 0.1}) is None


@pytest.mark.parametrize(("key", "number"), [
    ("zero_shot/abs_rel/eth3d", 1), ("zero_shot/delta1_error/kitti", 1), ("zero_shot/whdr/diw", 1),
    ("metric/abs_rel/nyuv2", 2), ("metric/log10/nyuv2", 2), ("metric/abs_rel/kitti", 3),
    ("segmentation/miou/ade20k", 4), ("segmentation/pix_acc/pascal_context_59", 5),
    ("zero_shot/abs_rel/kitti", None), ("zero_shot/abs_rel/nyu", None), ("relative/abs_rel/kitti", None),
    ("metric/abs_rel/eth3d", None), ("metric/abs_rel/nyu", None), ("relative/miou/ade20k", None),
])  # fmt: skip
def test_a_table_of_the_paper_takes_figures_of_its_own_protocol_only(key, number):
    assert [t.number for t in TABLES if beside_the_paper(t, {key: 0.5})] == ([number] if number else [])


def test_a_table_of_the_paper_takes_figures_on_its_own_images_only(model, mlflow_database, tmp_path):
    evaluated(str(model), {"metric/abs_rel/kitti": 0.0616, "metric/abs_rel/nyuv2": 0.0707}, ["kitti"])
    text = write_model_report(str(model), tmp_path / "out").read_text()
    assert ">0.062<" in text
    assert "Table 3: fine-tuned on KITTI" in text
    assert ">0.0707<" in text
    assert "Table 2: fine-tuned on NYUv2" not in text, "on other images"


def test_the_newest_skill_is_shown_with_the_figures_it_is_of(model, mlflow_database, tmp_path):
    names = ("skill", "abs_rel", "mean_map_abs_rel")
    for values in ((0.5, 0.1, 0.2), (0.25, 0.15, 0.2)):
        evaluated(str(model), {f"relative/{n}/mean": v for n, v in zip(names, values, strict=True)})
    evaluated(str(model), {"relative/abs_rel/mean": 0.9})  # of data without a mean map
    text = write_model_report(str(model), tmp_path / "out").read_text()
    assert "<dt>Skill</dt><dd>0.25<small>AbsRel 0.1500, of the mean map 0.2000</small>" in text


def test_errors_are_those_of_a_plain_alignment(model, shards_folder):
    network = dpt.load_model(model).eval()
    [sample] = samples_of(network, open_datasets([str(shards_folder / "tartanair")]), 1, "val")
    shown = show(network, sample)
    truth = sample.truth.astype(np.float64)
    counted = np.isfinite(truth) & (truth > 1 / sample.cap)
    prediction = dpt.predict.predict_inverse_depth(network, sample.image).astype(np.float64)
    design = np.stack([prediction[counted], np.ones(counted.sum())], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(design, truth[counted], rcond=None)
    depth = 1 / np.maximum(scale * prediction + shift, 1 / sample.cap)
    errors = np.abs(depth[counted] * truth[counted] - 1)
    assert shown.metrics["AbsRel"] == pytest.approx(errors.mean(), rel=1e-6)
    assert list(shown.pictures)[:3] == ["image", "ground truth", "prediction, aligned"]
    assert all(picture.shape == sample.image.shape for picture in shown.pictures.values())
    assert by_resolution(network, [sample])[64] == pytest.approx(shown.metrics["AbsRel"])


def test_wrong_pixels_are_those_that_differ(labelled):
    network = tiny().eval()
    sample = samples_of(network, [labelled], 3, None)[2]
    shown = show(network, sample)
    (prediction,) = predict_classes(network, [sample.image])
    counted = sample.truth != 255
    wrong = counted & (prediction != sample.truth)
    assert shown.metrics["pixAcc"] == pytest.approx(1 - wrong.sum() / counted.sum())
    red = (shown.pictures["wrong pixels in red"] == (230, 30, 30)).all(axis=2)
    assert wrong.any()
    assert (red == wrong).all()
    assert by_resolution(network, [sample])[network.config.image_size] == shown.metrics["mIoU"]


@pytest.mark.heavy
def test_a_segmentation_model_has_a_page(labelled, mlflow_database, tmp_path):
    dpt.save_model(tiny(), tmp_path / "tiny")
    page = write_model_report(str(tmp_path / "tiny"), tmp_path / "out", [labelled.folder.uri], images=2)
    text = page.read_text()
    assert len(re.findall(r'src="data:image/jpeg', text)) == 2 * 4 + 1
    assert "The mIoU by side of the network" in text


def test_a_segmentation_model_is_not_shown_on_depth(shards_folder, mlflow_database, tmp_path):
    dpt.save_model(tiny(), tmp_path / "tiny")
    with pytest.raises(NotADataset, match="labels are needed here"):
        write_model_report(str(tmp_path / "tiny"), tmp_path / "out", [str(shards_folder / "tartanair")])
    assert not (tmp_path / "out").exists()


@pytest.mark.heavy
def test_the_command_writes_one_page(model, shards_folder, mlflow_database, tmp_path):
    evaluated(str(model), {"zero_shot/abs_rel/eth3d": 0.5})
    evaluated(str(model), {"zero_shot/abs_rel/eth3d": 0.0884, "zero_shot/abs_rel/mean": 0.0884})
    out = tmp_path / "out"
    said("report", model, "--out", out, "--data", shards_folder, "--images", 2)
    text = (out / "report.html").read_text()
    assert ">0.088<" in text, "the newest"
    assert "Table 1: zero-shot transfer" in text
    assert len(re.findall(r'src="data:image/jpeg', text)) == 2 * 2 * 4 + 1
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert {path.name for path in (out / "charts").iterdir()} == {"resolution.svg", "resolution.png"}
    assert mlflow.get_tracking_uri() == mlflow_database


def test_a_model_that_nobody_evaluated_says_so(model, mlflow_database, tmp_path):
    assert "give --data, prepared datasets, to show some" in said("report", model, "--out", tmp_path / "out")
    assert "has no evaluation of this model yet" in (tmp_path / "out" / "report.html").read_text()


def test_data_without_a_model_is_refused(mlflow_database):
    with pytest.raises(UserError, match="--data belongs to the report of a model"):
        said("report", "nothing", "--data", "shards")


@pytest.mark.heavy
def test_it_looks_right_in_a_browser(model, shards_folder, mlflow_database, tmp_path):
    page = write_model_report(str(model), tmp_path / "out", [str(shards_folder)], images=1)
    with browsing() as window:
        window.open(page)
        assert (window.requested(), window.complaints()) == ([page.absolute().as_uri()], [])
        for width in (1280, 390):
            window.look("dark", width)
            assert window.run("return document.documentElement.scrollWidth") <= width
        broken = "return [...document.images].filter(i => !i.naturalWidth).length"
        assert window.run(broken) == 0
