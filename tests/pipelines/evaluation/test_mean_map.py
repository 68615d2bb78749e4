"""The mean map and skill, against NumPy written from their definitions."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.synthetic import write_dataset
from pipelines.config import CapsSection, EvaluateConfig
from pipelines.evaluate import evaluate
from pipelines.evaluation.mean_map import predict_mean_map
from pipelines.evaluation.relative_depth import relative_share
from pipelines.evaluation.selection import evaluation_datasets
from pipelines.loading.batches import evaluation_batches
from pipelines.tracking.metric_keys import with_mean
from tests.support import shards

CELLS = 64


@pytest.fixture(scope="module", params=["tartanair", "blendedmvs"])
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Metric depth with sky, and depth up to scale with holes; images are whole cells of the map."""
    name, folder = request.param, tmp_path_factory.mktemp("data")
    write_dataset(name, folder / "raw", scenes=3, height=128, width=192)
    settings = IngestSettings(side=128, samples_per_shard=4, validation_share=0.4)
    return shards.prepare(plan_ingest(name, str(folder / "raw"), settings), str(folder / "shards"))


def images(dataset: PreparedDataset, split: str) -> list[tuple[NDArray[np.float64], float]]:
    """Inverse depth of each image, and its factor to 1/m."""
    return [
        (target.astype(np.float64), scale)
        for batch in evaluation_batches(dataset, split, 0, 0, 1, 1)
        for target, scale in zip(batch.target.numpy(), batch.scale.numpy(), strict=True)
    ]


def expected_map(dataset: PreparedDataset) -> NDArray[np.float64]:
    """The mean over images of (d - median) / mean |d - median|, of the valid pixels of a cell."""
    total, pixels = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for inverse, _ in images(dataset, "train"):
        valid = np.isfinite(inverse)
        ordered = np.sort(inverse[valid])
        centred = inverse - ordered[(len(ordered) - 1) // 2]
        normalised = np.where(valid, centred / np.abs(centred[valid]).mean(), 0)
        height, width = inverse.shape[0] // CELLS, inverse.shape[1] // CELLS
        total += normalised.reshape(CELLS, height, CELLS, width).sum(axis=(1, 3))
        pixels += valid.reshape(CELLS, height, CELLS, width).sum(axis=(1, 3))
    return np.divide(total, pixels, out=np.zeros_like(total), where=pixels > 0)


def enlarged(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Linear in both directions, between the centres of cells."""
    for axis, size in ((0, height), (1, width)):
        centres = (np.arange(size) + 0.5) * CELLS / size - 0.5
        values = np.apply_along_axis(lambda v, at=centres: np.interp(at, np.arange(CELLS), v), axis, values)
    return values


def expected_abs_rel(prediction: NDArray[np.float64], dataset: PreparedDataset) -> list[float]:
    """AbsRel of each validation image after a least squares fit in inverse depth, to 80 m or 10 × nearest."""
    errors = []
    for inverse, scale in images(dataset, "val"):
        floor = 1 / 10 if np.isnan(scale) else 1 / 80 / scale
        counted = np.nan_to_num(inverse) > floor
        truth = inverse[counted]
        factors = np.stack([prediction[counted], np.ones(counted.sum())], axis=1)
        aligned = factors @ np.linalg.lstsq(factors, truth, rcond=None)[0]
        errors.append(float(np.mean(np.abs(1 / np.maximum(aligned, floor) - 1 / truth) * truth)))
    return errors


@pytest.mark.heavy
def test_it_is_the_mean_of_normalised_inverse_depth(prepared):
    found = predict_mean_map(prepared, 2, 128, 192).numpy()
    expected = enlarged(expected_map(prepared), 128, 192)
    np.testing.assert_allclose(found, np.stack([expected] * 2), rtol=0, atol=1e-5)


def test_a_model_is_measured_beside_it(prepared):
    errors = expected_abs_rel(enlarged(expected_map(prepared), 128, 192), prepared)
    torch.manual_seed(0)
    model = dpt.create_model("dpt_tiny").eval()
    parts = [relative_share(model, prepared, rank, 2, "val", CapsSection(), (64, None)) for rank in (0, 1)]
    for part in parts[1:]:
        parts[0].merge(part)
    found = parts[0].result()
    assert found["images"] == len(errors)
    assert found["mean_map_abs_rel"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["skill"] == pytest.approx(1 - found["abs_rel"] / np.mean(errors), rel=1e-4)

    alone = relative_share(None, prepared, 0, 1, "val", CapsSection()).result()
    assert alone["abs_rel"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert alone.keys() == found.keys() - {"mean_map_abs_rel", "skill"}


def test_without_a_training_split_there_is_none(tmp_path, prepared):
    write_dataset("sintel", tmp_path / "raw", scenes=2, height=48, width=64)
    plan = plan_ingest("sintel", str(tmp_path / "raw"), IngestSettings(side=32))
    sintel = shards.prepare(plan, str(tmp_path / "shards"))
    model = dpt.create_model("dpt_tiny").eval()
    alone = relative_share(model, sintel, 0, 1, "test", CapsSection(), (64, None)).result()
    assert alone["images"]
    assert "skill" not in alone
    reason = "sintel has no split 'train'; it has"
    with pytest.raises(NotADataset, match=reason):
        evaluate(EvaluateConfig(split="test"), None, [sintel.folder.uri])
    both, said = [str(tmp_path / "shards"), prepared.folder.uri], []
    with pytest.raises(NotADataset, match=reason):
        evaluation_datasets(None, "test", [sintel.folder.uri], said.append)
    assert [d.name for d in evaluation_datasets(None, "val", both, said.append)] == [prepared.name]
    assert "not evaluated on: sintel has no split" in said[0]


def test_a_mean_over_datasets_is_of_metrics_that_all_have():
    results = {"a": {"abs_rel": 0.1, "skill": 0.5, "rmse": 1.0}, "b": {"abs_rel": 0.3, "rmse": 2.0}}
    assert with_mean(results)["mean"] == {"abs_rel": pytest.approx(0.2)}
    assert with_mean(results, ["rmse", "skill"])["mean"] == {"rmse": 1.5}
