import math

import numpy as np
import pytest
import torch
import torchmetrics

from dpt.metrics import MetricSums, SegmentationCounts, depth_metrics, merged, metric_depth_metrics, whdr
from tests.support.zero_shot_reference import metrics_of


def images(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + 99 * torch.rand(count, 13, 17, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 13, 17, generator=generator, dtype=torch.float64)
    prediction = (5 / depth + 0.3) * (1 + 0.3 * noise)
    valid = torch.rand(count, 13, 17, generator=generator) < 0.8
    return prediction.float(), (1 / depth).float(), valid


def reference(prediction, inverse, valid, cap):
    """The protocol, pixel lists in float64."""
    mask = valid & (inverse > 1 / cap)
    p, d = prediction[mask].astype(np.float64), inverse[mask].astype(np.float64)
    scale, shift = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), d, rcond=None)[0]
    p = 1 / np.maximum(scale * p + shift, 1 / cap)
    t = 1 / d
    metrics = metrics_of(p, t)
    errors = {f"delta{k}_error": 1 - metrics[f"delta{k}"] for k in (1, 2, 3)}
    return {"pixels": mask.sum(), **metrics, **errors}


@pytest.mark.parametrize("cap", [20.0, 80.0, 1000.0])
def test_metrics_are_the_protocol(cap):
    prediction, inverse, valid = images()
    metrics = depth_metrics(prediction, inverse, valid, cap)
    for i in range(len(prediction)):
        expected = reference(prediction[i].numpy(), inverse[i].numpy(), valid[i].numpy(), cap)
        assert metrics.keys() == expected.keys()
        for key, value in expected.items():
            assert metrics[key].dtype == torch.float64
            np.testing.assert_allclose(metrics[key][i], value, rtol=1e-9, err_msg=key)


def test_the_floor_at_the_cap_is_applied():
    prediction, inverse, valid = images()
    assert (depth_metrics(prediction, inverse, valid, 20.0)["rmse"] < 20).all()


def test_a_cap_for_each_image():
    prediction, inverse, valid = images(count=2)
    both = depth_metrics(prediction, inverse, valid, torch.tensor([20.0, 80.0]))
    for i, cap in enumerate((20.0, 80.0)):
        alone = depth_metrics(prediction[i : i + 1], inverse[i : i + 1], valid[i : i + 1], cap)
        for key, value in alone.items():
            torch.testing.assert_close(both[key][i : i + 1], value, rtol=1e-12, atol=0)


def test_affine_changes_of_the_prediction_do_not_matter():
    prediction, inverse, valid = images()
    first = depth_metrics(prediction.double(), inverse, valid, 80.0)
    second = depth_metrics(100 - 7 * prediction.double(), inverse, valid, 80.0)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-9, atol=1e-12)


def test_a_perfect_prediction_scores_perfectly():
    _, inverse, valid = images()
    metrics = depth_metrics(inverse * 1000 + 3, inverse, valid, 80.0)
    assert metrics["abs_rel"].max() < 1e-3
    assert (metrics["delta1"] == 1).all()
    assert (metrics["delta1_error"] == 0).all()


def test_sums_do_not_depend_on_batches_or_workers_and_count_empty_images_apart():
    prediction, inverse, valid = images(count=7)
    valid[2] = False
    expected = {}
    for i in (0, 1, 3, 4, 5, 6):
        alone = reference(*(maps[i].numpy() for maps in (prediction, inverse, valid)), 80.0)
        for key, value in alone.items():
            expected[key] = expected.get(key, 0) + value / 6
    del expected["pixels"]
    for cuts in ([7], [1, 6], [3, 3, 1], [2, 1, 4]):
        workers = [MetricSums(), MetricSums()]
        start = 0
        for turn, size in enumerate(cuts):
            batch = [x[start : start + size] for x in (prediction, inverse, valid)]
            workers[turn % 2].update(depth_metrics(*batch, 80.0))
            start += size
        result = merged(workers[::-1]).result()
        assert (result.pop("images"), result.pop("empty_images")) == (6, 1)
        assert result.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(result[key], value, rtol=1e-9)


def test_a_nan_prediction_is_not_averaged_away():
    prediction, inverse, valid = images()
    prediction[1, 3, 3] = torch.nan
    valid[1, 3, 3] = True
    inverse[1, 3, 3] = 0.5
    sums = MetricSums()
    sums.update(depth_metrics(prediction, inverse, valid, 80.0))
    assert sums.empty_images == 0
    for key in ("abs_rel", "rmse", "delta1", "delta1_error"):
        assert math.isnan(sums.result()[key])


def test_sums_of_nothing_are_nan_not_zero():
    prediction, inverse, valid = images()
    sums = MetricSums()
    sums.update(depth_metrics(prediction, inverse, torch.zeros_like(valid), 80.0))
    assert math.isnan(sums.result()["abs_rel"])
    assert sums.result()["empty_images"] == 5


def test_sums_refuse_other_metrics():
    sums = MetricSums()
    sums.update({"a": torch.ones(2)})
    with pytest.raises(ValueError, match=r"\['a'\] and \['b'\]"):
        sums.update({"b": torch.ones(2)})


def test_errors_against_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.rand(1, 8, 9, generator=generator).double() + 0.1 for _ in range(2))
    valid = torch.ones(1, 8, 9, dtype=torch.bool)
    metrics = metric_depth_metrics(prediction, target, valid)
    checks = {
        "rmse": torchmetrics.functional.mean_squared_error(prediction, target, squared=False),
        "rmse_log": torchmetrics.functional.mean_squared_error(prediction.log(), target.log(), squared=False),
        "abs_rel": torchmetrics.functional.mean_absolute_percentage_error(prediction, target),
    }
    for key, value in checks.items():
        torch.testing.assert_close(metrics[key][0], value.double(), rtol=1e-6, atol=0)


def test_whdr_counts_disagreeing_pairs():
    prediction = torch.tensor([[[4.0, 2.0], [2.0, 1.0]]])
    first = torch.tensor([[[0, 0], [0, 0], [0, 1], [1, 1]]])
    second = torch.tensor([[[0, 1], [1, 1], [1, 0], [0, 0]]])
    # pairs: 4 > 2, 4 > 1, 2 = 2, 1 < 4
    assert whdr(prediction, first, second, torch.tensor([[1, 1, 0, -1]])).tolist() == [0.0]
    assert whdr(prediction, first, second, torch.tensor([[-1, 1, 1, 1]])).tolist() == [0.75]


def test_segmentation_counts():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (4, 6, 7), generator=generator)
    right = torch.rand(4, 6, 7, generator=generator) < 0.6
    prediction = torch.where(right, labels, torch.randint(0, 5, (4, 6, 7), generator=generator))
    labels[0, 0] = 255
    counts = [SegmentationCounts(6), SegmentationCounts(6)]  # class 5 never occurs
    counts[0].update(prediction[:1], labels[:1])
    counts[1].update(prediction[1:], labels[1:])
    counts[0].merge(counts[1])
    p, t = prediction[labels != 255].numpy(), labels[labels != 255].numpy()
    ious = [((p == k) & (t == k)).sum() / ((p == k) | (t == k)).sum() for k in range(5)]
    result = counts[0].result()
    np.testing.assert_allclose(result["pix_acc"], (p == t).mean(), rtol=1e-12)
    np.testing.assert_allclose(result["miou"], np.mean(ious), rtol=1e-12)


def random_maps(seed: int = 0, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and labels (5, 8, 9) in which the last class never occurs, and some pixels do not count."""
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 8, 9)
    labels = torch.randint(0, classes - 1, shape, generator=generator)
    guesses = torch.randint(0, classes - 1, shape, generator=generator)
    prediction = torch.where(torch.rand(shape, generator=generator) < 0.6, labels, guesses)
    labels[torch.rand(shape, generator=generator) < 0.1] = 255
    return prediction, labels


@pytest.mark.parametrize("seed", range(5))
def test_segmentation_counts_against_torchmetrics(seed):
    prediction, labels = random_maps(seed)
    counts = SegmentationCounts(6)
    counts.update(prediction, labels)
    result = counts.result()
    theirs = torchmetrics.classification.MulticlassJaccardIndex(6, average=None, ignore_index=255)
    iou = theirs(prediction, labels).double()
    assert counts.class_iou()[5].isnan()
    torch.testing.assert_close(counts.class_iou()[:5], iou[:5], rtol=1e-6, atol=0)
    assert result["miou"] == pytest.approx(float(iou[:5].mean()), rel=1e-6)
    accuracy = torchmetrics.classification.MulticlassAccuracy(6, average="micro", ignore_index=255)
    assert result["pix_acc"] == pytest.approx(float(accuracy(prediction, labels)), rel=1e-6)
    assert (result["classes"], result["images"]) == (5, 5)
    assert result["pixels"] == int((labels != 255).sum())


def test_segmentation_counts_are_the_same_however_images_are_spread():
    prediction, labels = random_maps()
    whole = SegmentationCounts(6)
    whole.update(prediction, labels)
    total = SegmentationCounts(6)
    for part in ([4], [1, 0], [], [3, 2]):
        share = SegmentationCounts(6)
        for image in part:
            share.update(prediction[image, None].to(torch.uint8), labels[image, None].to(torch.uint8))
        total.merge(share)
    assert torch.equal(total.confusion, whole.confusion)
    assert total.result() == whole.result()


def test_segmentation_counts_of_nothing_are_nan_not_zero():
    counts = SegmentationCounts(3)
    counts.update(torch.zeros(2, 4, 4, dtype=torch.int64), torch.full((2, 4, 4), 255))
    assert math.isnan(counts.result()["miou"])
    assert math.isnan(counts.result()["pix_acc"])
    assert counts.result()["images"] == 2


@pytest.mark.parametrize(("prediction", "label", "message"), [
    (0, 3, "label 3 is not one of 3 classes, 0 to 2"),
    (7, 0, "predicted class 7"),
    (-1, 0, "predicted class -1"),
])  # fmt: skip
def test_segmentation_counts_refuse_what_is_no_class(prediction, label, message):
    counts = SegmentationCounts(3)
    with pytest.raises(ValueError, match=message):
        counts.update(torch.full((1, 2, 2), prediction), torch.full((1, 2, 2), label))
    assert int(counts.confusion.sum()) == 0
    with pytest.raises(ValueError, match="predictions are"):
        counts.update(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
