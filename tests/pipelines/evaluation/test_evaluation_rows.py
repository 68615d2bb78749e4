"""Evaluation on ground truth at its native resolution, and on datasets that have no depth maps."""

from pathlib import Path

import numpy as np
import pytest
import torch

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
from tests.support import shards


def prepare(name: str, folder: Path) -> PreparedDataset:
    write_dataset(name, folder / "raw" / name, scenes=4, height=48, width=64)
    plan = plan_ingest(name, str(folder / "raw" / name), IngestSettings(side=32, samples_per_shard=8))
    return shards.prepare(plan, str(folder / "shards"))


@pytest.fixture(scope="module")
def sintel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedDataset]:
    folder = tmp_path_factory.mktemp("sintel")
    return folder / "raw" / "sintel", prepare("sintel", folder)


def test_batches_hold_the_sources_depth_to_the_last_bits(sintel):
    raw, prepared = sintel
    source, root = SOURCES["sintel"], Folder(raw)
    samples = {sample.sample_id: sample for sample in source.list(root).samples}
    seen = 0
    for batch in evaluation_batches(prepared, "test", 0, 0, 1, batch_size=8):
        assert batch.target.dtype == torch.float32
        rows = zip(batch.sample_ids, batch.target.numpy(), batch.scale.numpy(), strict=True)
        for sample_id, inverse, scale in rows:
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
    for pixels, most in ((2 * 48 * 64, 2), (1, 1)):
        monkeypatch.setattr(loading, "EVALUATION_PIXELS", pixels)
        sizes = [len(b.sample_ids) for b in evaluation_batches(sintel[1], "test", 0, 0, 1, batch_size=8)]
        assert max(sizes) == most


def test_evaluation_rows_are_no_training_data(sintel):
    where = {"uris": [sintel[1].folder.uri], "split": "test", "crops": RelativeDepthCrops((32, 32), False)}
    sharing = {"stages": [Stage(1)], "seed": 0, "batch_size": 2, "start": 0, "rank": 0, "world_size": 1}
    settings = LoaderSettings(**where, **sharing)
    with pytest.raises(ValueError, match="has no inverse depth to train on"):
        list(training_batches(settings, processes=0))


@pytest.mark.parametrize(("name", "split", "kind"), [("diw", "test", "ordinal"), ("ade20k", "val", "labels")])
def test_datasets_without_depth_maps_are_refused(name, split, kind, tmp_path):
    prepared = prepare(name, tmp_path)
    with pytest.raises(NotADataset, match=rf"^{name} has {kind} as ground truth, depth maps are needed"):
        next(evaluation_batches(prepared, split, 0, 0, 1, batch_size=8))
