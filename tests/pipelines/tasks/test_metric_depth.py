from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset, open_datasets
from pipelines.config import ConfigError, TrainConfig
from pipelines.loading.batches import Batch
from pipelines.tasks.metric_depth import MetricDepth
from pipelines.train import check_fits, identity_of
from tests.support.models import batch_of


def config(**metric: object) -> TrainConfig:
    settings = {"model": {"name": "dpt_tiny", "pretrained": False}, "optimizer": {"objective": "average"}}
    return TrainConfig(
        task="metric_depth", metric_depth=metric, crop=(64, 96), precision="float32", **settings
    )


def crops(target: torch.Tensor) -> Batch:
    """Black ones with that `target`."""
    return batch_of(torch.zeros(*target.shape, 3, dtype=torch.uint8), target, [0] * len(target))


@pytest.fixture
def metric_set(shards_folder: Path) -> PreparedDataset:
    return open_datasets([str(shards_folder / "tartanair")])[0]


def by_hand(prediction: np.ndarray, target: np.ndarray, weight: float, matching: float) -> float:
    """Eigen's loss of one image, and matching of gradients of log depth at four resolutions, in float64."""
    valid = ~np.isnan(target)
    residual = np.where(valid, np.log(prediction) - np.log(np.where(valid, target, 1.0)), 0.0)
    g = residual[valid]
    loss = np.mean(g**2) - weight * np.mean(g) ** 2
    for step in (1, 2, 4, 8):
        r, v = residual[::step, ::step], valid[::step, ::step]
        down, across = np.abs(np.diff(r, axis=0)), np.abs(np.diff(r))
        both = down[v[1:] & v[:-1]].sum() + across[v[:, 1:] & v[:, :-1]].sum()
        loss += matching * both / v.sum()
    return float(loss)


@pytest.mark.parametrize(("weight", "matching"), [(0.5, 0.0), (0.85, 0.5)])
def test_the_loss_is_eigens_with_gradient_matching_where_it_is_asked_for(weight, matching):
    random = np.random.default_rng(0)
    prediction = random.uniform(1, 60, (2, 32, 48))
    target = random.uniform(1, 80, (2, 32, 48)).astype(np.float32)
    target[random.random(target.shape) < 0.6] = np.nan
    task = MetricDepth(config(silog_weight=weight, gradient_weight=matching))
    found = task.losses(torch.from_numpy(prediction), crops(torch.from_numpy(target)))
    expected = [by_hand(p, t, weight, matching) for p, t in zip(prediction, target, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5)


def test_a_crop_without_ground_truth_has_no_loss_and_no_gradient():
    prediction = torch.rand(1, 8, 8, requires_grad=True)
    losses = MetricDepth(config()).losses(prediction, crops(torch.full((1, 8, 8), torch.nan)))
    losses.sum().backward()
    assert losses.item() == 0
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


def test_predictions_without_a_gradient_do_not_rule_the_others():
    target = torch.full((1, 8, 8), 20.0)
    prediction = torch.full((1, 8, 8), 20.0)
    prediction[0, 0, 0] = 1e8
    task = MetricDepth(config(gradient_weight=0.0))
    farthest = np.log(10 * 80 / 20)
    expected = farthest**2 / 64 - 0.5 * (farthest / 64) ** 2
    assert task.losses(prediction, crops(target)).item() == pytest.approx(expected, rel=1e-5)


def test_a_network_that_is_not_trained_is_not_aligned():
    model = MetricDepth(config(image_size=96)).prepare_model(dpt.create_model("dpt_tiny"), [], print)
    settings = model.config
    assert (settings.scale, settings.shift, settings.invert, settings.image_size) == (1.0, 0.0, True, 96)


def test_relative_data_is_refused(shards_folder):
    with pytest.raises(NotADataset, match=r"redweb has no metric scale \(its ground truth is affine\)"):
        check_fits(config(), open_datasets([str(shards_folder / "redweb")]))


@pytest.mark.parametrize("settings", [{"kb_crop": True}, {"border": [2, 2, 60, 80]}])
def test_crops_in_pixels_of_the_original_need_images_of_their_own_size(metric_set, settings):
    with pytest.raises(NotADataset, match=r"tartanair was resized .*prepare it with resize=none"):
        check_fits(config(**settings), [metric_set])
    own = replace(metric_set.manifest, settings={**metric_set.manifest.settings, "resize": "none"})
    check_fits(config(**settings), [PreparedDataset(metric_set.folder, own)])


@pytest.mark.parametrize(("overrides", "message"), [
    ({"task": "segmentation"}, "a segmentation model, but the task is metric_depth"),
    ({"max_depth": 20.0}, "ends in a sigmoid of depth"),
])  # fmt: skip
def test_a_model_of_another_task_is_refused(metric_set, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_fits(config(), [metric_set], dpt.create_model("dpt_tiny", **overrides))


def test_what_decides_the_curve_is_in_the_identity():
    first, second = (identity_of(config(rotation=angle), [])["config"] for angle in (1.0, 2.0))
    assert first["task"] == "metric_depth"
    assert first != second
