"""Evaluation on ground truth at its native resolution, and on datasets that have no depth maps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_prep.ingest.run import ingest_all
from datasets_prep.manifest import NotADataset, PreparedDataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import write_dataset
from dpt.metrics import depth_metrics
from pipelines.loading import batches as loading
from pipelines.loading.batches import LoaderSettings, evaluation_batches, training_batches
from pipelines.loading.crops import RelativeDepthCrops
from pipelines.sampling.plan import Stage


def prepare(name: str, folder: Path) -> PreparedDataset:
    write_dataset(name, folder / "raw" / name, scenes=4, height=48, width=64)
    plan = plan_ingest(name, str(folder / "raw" / name), IngestSettings(side=32, samples_per_shard=8))
    return ingest_all(plan, str(folder / "shards"))


@pytest.fixture(scope="module")
def sintel(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedDataset]:
    folder = tmp_path_factory.mktemp("sintel")
    return folder / "raw" / "sintel", prepare("sintel", folder)


def test_batches_hold_the_sources_depth_to_the_last_bits(sintel):
    raw, prepared = sintel
    source, root = SOURCES["sintel"], Folder(raw)
    samples = {sample.sample_id: sample for sample in source.list(root).samples}
    seen = 0
    for batch in evaluation_batches(prepared, "test", 0, 0, 1, batch_size=8):
        assert batch.target.dtype == torch.float32
        for sample_id, inverse, scale in zip(
            batch.sample_ids, batch.target.numpy(), batch.scale.numpy(), strict=True
        ):
            truth = source.read(root, samples[sample_id])
            assert inverse.shape == truth.target.shape == (48, 64)
            metres = 1 / (inverse.astype(np.float64) * scale)
            np.testing.assert_array_equal(np.isnan(metres), ~truth.valid)
            np.testing.assert_allclose(metres[truth.valid], truth.target[truth.valid], rtol=1e-6)
            assert np.nanmax(inverse) == 1.0
            seen += 1
    assert seen == len(samples)


def test_a_perfect_prediction_has_no_error(sintel):
    batch = next(evaluation_batches(sintel[1], "test", 0, 0, 1, batch_size=2))
    target, caps = batch.target.nan_to_num(0.0), 72.0 * batch.scale
    metrics = depth_metrics(3 * target + 0.5, target, ~batch.target.isnan(), caps)
    assert metrics["abs_rel"].max() < 1e-3


def test_large_images_come_a_few_at_a_time(sintel, monkeypatch):
    monkeypatch.setattr(loading, "EVALUATION_PIXELS", 2 * 48 * 64)
    sizes = [len(b.sample_ids) for b in evaluation_batches(sintel[1], "test", 0, 0, 1, batch_size=8)]
    assert max(sizes) == 2
    monkeypatch.setattr(loading, "EVALUATION_PIXELS", 1)
    sizes = [len(b.sample_ids) for b in evaluation_batches(sintel[1], "test", 0, 0, 1, batch_size=8)]
    assert set(sizes) == {1}


def test_evaluation_rows_are_no_training_data(sintel):
    settings = LoaderSettings(
        uris=[sintel[1].folder.uri],
        split="test",
        stages=[Stage(steps=1)],
        seed=0,
        batch_size=2,
        crops=RelativeDepthCrops((32, 32), flip=False),
        start=0,
        rank=0,
        world_size=1,
    )
    with pytest.raises(ValueError, match="has no inverse depth to train on"):
        list(training_batches(settings, processes=0))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("name", "split", "kind"), [("diw", "test", "ordinal"), ("ade20k", "val", "labels")])
def test_datasets_without_depth_maps_are_refused(name, split, kind, tmp_path):
    prepared = prepare(name, tmp_path)
    with pytest.raises(NotADataset, match=rf"^{name} has {kind} as ground truth, depth maps are needed"):
        next(evaluation_batches(prepared, split, 0, 0, 1, batch_size=8))
