from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dpt
from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.schema import decode_image, decode_inverse_depth
from dpt.predict.depth import predict_inverse_depth
from pipelines.config import TrainConfig
from pipelines.tasks.global_alignment import NoAlignment, average_alignment


def config(workers: int = 1) -> TrainConfig:
    return TrainConfig(task="metric_depth", workers=workers, device="cpu")


@pytest.fixture
def dataset(shards_folder: Path) -> PreparedDataset:
    return open_datasets([str(shards_folder / "tartanair")])[0]


def relative_model() -> dpt.DPT:
    torch.manual_seed(3)
    return dpt.create_model("dpt_tiny", image_size=64).eval()


def robust(values: np.ndarray) -> tuple[float, float]:
    """Median (the lower one of an even number) and mean absolute deviation."""
    median = np.sort(values)[(len(values) - 1) // 2]
    return median, np.abs(values - median).mean()


def by_hand(model: dpt.DPT, dataset: PreparedDataset) -> tuple[float, float]:
    """MiDaS' robust alignment of every training image, averaged; one by one, in float64."""
    found = []
    for shard in dataset.manifest.split("train"):
        for row in pq.read_table(dataset.folder.path_of(shard.name)).to_pylist():
            inverse = decode_inverse_depth(row["inverse_depth"], row["height"], row["width"])
            target = inverse.astype(np.float64) * row["scale"]
            prediction = predict_inverse_depth(model, decode_image(row["image"])).astype(np.float64)
            valid = ~np.isnan(target)
            (middle, spread), (truth, width) = robust(prediction[valid]), robust(target[valid])
            found.append((width / spread, truth - width / spread * middle))
    return tuple(np.mean(found, axis=0))


@pytest.mark.usefixtures("ray_session")
def test_the_average_is_that_of_every_image_aligned_by_hand(dataset):
    model = relative_model()
    found = average_alignment(model, [dataset], config())
    assert (found.scale, found.shift) == pytest.approx(by_hand(model, dataset), rel=1e-4)
    assert (found.images, found.flat) == (dataset.manifest.samples["train"], 0)


@pytest.mark.usefixtures("ray_session")
def test_the_average_does_not_depend_on_the_number_of_workers(dataset):
    model = relative_model()
    one, two = (average_alignment(model, [dataset], config(workers)) for workers in (1, 2))
    # Two share the threads of one, which add up in another order.
    assert (two.scale, two.shift) == pytest.approx((one.scale, one.shift), rel=1e-6)
    assert (two.images, two.flat) == (one.images, one.flat)


@pytest.mark.usefixtures("ray_session")
def test_a_model_that_predicts_one_value_is_refused(dataset):
    model = relative_model()
    torch.nn.init.zeros_(model.head.get_parameter("conv3.weight"))
    with pytest.raises(NoAlignment, match="predicts a constant"):
        average_alignment(model, [dataset], config())
