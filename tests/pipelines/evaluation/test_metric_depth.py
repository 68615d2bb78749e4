import numpy as np
import pytest
import torch

from dpt.regions import kb_window, region_window
from pipelines.evaluation.metric_depth import METRICS, ProtocolError, protocol_metrics
from pipelines.evaluation.sets import PROTOCOLS, MetricProtocol
from tests.support.zero_shot_reference import metrics_of


def by_hand(prediction: np.ndarray, depth: np.ndarray, counted: np.ndarray, cap: float) -> dict[str, float]:
    """The metrics of one image as the literature defines them, in float64."""
    p = np.clip(prediction[counted].astype(np.float64), 1e-3, cap)
    t = depth[counted].astype(np.float64)
    return metrics_of(p, t)


def scene(height: int, width: int, farthest: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and sparse ground truth, both from near zero to beyond the cap."""
    random = np.random.default_rng(seed)
    depth = random.uniform(0.0005, farthest, (height, width)).astype(np.float32)
    prediction = (depth * random.uniform(0.5, 1.8, depth.shape)).astype(np.float32)
    depth[random.random(depth.shape) < 0.7] = np.nan
    return prediction, depth


def test_kitti_counts_inside_the_garg_crop_up_to_80_metres():
    height, width = 375, 1242
    scenes = [scene(height, width, 100.0, seed) for seed in range(2)]
    expected = []
    for prediction, depth in scenes:
        counted = np.zeros((height, width), bool)
        rows = slice(int(0.40810811 * 375), int(0.99189189 * 375))
        counted[rows, int(0.03594771 * 1242) : int(0.96405229 * 1242)] = 1
        counted &= (depth > 1e-3) & (depth < 80)
        expected.append(by_hand(prediction, depth, counted, 80.0))
        # What the network does not see lies outside of what counts.
        prediction[:23], prediction[:, :13], prediction[:, 1229:] = np.nan, np.nan, np.nan
    prediction, depth = (torch.from_numpy(np.stack(maps)) for maps in zip(*scenes, strict=True))
    found = protocol_metrics(prediction, depth, PROTOCOLS["kitti"], ["a", "b"])
    for name in METRICS:
        np.testing.assert_allclose(found[name].numpy(), [e[name] for e in expected], rtol=1e-9)


def test_nyu_counts_inside_the_eigen_crop_up_to_10_metres():
    prediction, depth = scene(480, 640, 12.0, 5)
    counted = np.zeros((480, 640), bool)
    counted[45:471, 41:601] = True
    counted &= (depth > 1e-3) & (depth < 10)
    maps = (torch.from_numpy(values)[None] for values in (prediction, depth))
    found = protocol_metrics(*maps, PROTOCOLS["nyuv2"], ["a"])
    assert found["pixels"].item() == counted.sum()
    for name, value in by_hand(prediction, depth, counted, 10.0).items():
        assert found[name].item() == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(("height", "width", "top", "left"), [(375, 1242, 23, 13), (376, 1241, 24, 12)])
def test_the_benchmark_crop_is_at_the_lower_middle(height, width, top, left):
    assert kb_window(height, width) == (slice(top, height), slice(left, left + 1216))
    assert height - top == 352


def test_the_benchmark_crop_of_a_small_image_is_the_image():
    assert kb_window(96, 128) == (slice(0, 96), slice(0, 128))


@pytest.mark.parametrize("region", ["all", "garg"])
def test_regions_lie_inside_of_images_of_any_size(region):
    rows, columns = region_window(region, 96, 128)
    assert 0 <= rows.start < rows.stop <= 96
    assert 0 <= columns.start < columns.stop <= 128


def test_the_eigen_crop_of_another_size_is_refused():
    photo = torch.ones(1, 384, 512)
    with pytest.raises(ProtocolError, match="512x384"):
        protocol_metrics(photo, photo, MetricProtocol(10.0, "eigen"), ["a"])


def test_a_prediction_that_is_no_number_is_named():
    prediction, depth = torch.ones(2, 4, 4), torch.ones(2, 4, 4)
    prediction[1, 2, 2] = torch.nan
    with pytest.raises(ProtocolError, match="NaN in image b"):
        protocol_metrics(prediction, depth, MetricProtocol(10.0), ["a", "b"])


def test_infinite_predictions_are_as_far_as_the_cap():
    prediction = torch.full((1, 4, 4), torch.inf)
    found = protocol_metrics(prediction, torch.full((1, 4, 4), 5.0), MetricProtocol(10.0), ["a"])
    assert found["abs_rel"].item() == 1.0


def test_an_image_without_ground_truth_counts_nothing():
    depth = torch.full((1, 4, 4), torch.nan)
    assert protocol_metrics(torch.ones(1, 4, 4), depth, MetricProtocol(10.0), ["a"])["pixels"].item() == 0
