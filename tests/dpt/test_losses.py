"""The losses against float64 references written from the papers' formulas, pixel by pixel."""

import numpy as np
import pytest
import torch

from dpt.losses import (
    ScaleShiftInvariantLoss,
    SegmentationLoss,
    SILogLoss,
    gradient_matching,
    of_both_parts,
)
from tests.support.losses import reference_gradient, reference_trimmed


def maps(batch=3, height=17, width=22, share=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.rand(batch, height, width, generator=generator, dtype=torch.float64) * 5
    target = torch.rand(batch, height, width, generator=generator, dtype=torch.float64)
    valid = torch.rand(batch, height, width, generator=generator) < share
    return prediction, target, valid


@pytest.mark.parametrize("share", [0.04, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("trim", [0.0, 0.2, 0.7])
def test_trimmed_loss_is_the_papers_formula(share, trim):
    prediction, target, valid = maps(share=share)
    loss = ScaleShiftInvariantLoss(trim=trim)(prediction, target, valid)
    expected = [
        reference_trimmed(p.numpy(), t.numpy(), v.numpy(), trim)
        for p, t, v in zip(prediction, target, valid, strict=True)
    ]
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-10)


def test_each_image_can_have_its_own_trim_and_weight_of_gradient_matching():
    prediction, target, valid = maps()
    trims, weights = [0.0, 0.1, 0.7], [0.5, 0.0, 2.0]
    own = torch.tensor(trims, dtype=torch.float64), torch.tensor(weights)
    loss = ScaleShiftInvariantLoss()(prediction, target, valid, *own)
    numbers = zip(prediction.numpy(), target.numpy(), valid.numpy(), trims, weights, strict=True)
    np.testing.assert_allclose(loss.numpy(), [reference_trimmed(*image) for image in numbers], rtol=1e-10)
    unmatched = ScaleShiftInvariantLoss()(prediction, target, valid, own[0], 0.0)
    assert unmatched[1] == loss[1]
    assert unmatched[2] < loss[2]


@pytest.mark.parametrize("trims", [None, [0.0, 0.1, 0.3]])
def test_both_parts_of_a_mixed_image_align_with_their_own_labels(trims):
    prediction, target, valid = maps()
    # Image 1 has a rectangle with labels of another scale and shift, image 2 one at an edge.
    box = torch.tensor([[0, 0, 0, 0], [3, 5, 12, 19], [0, 0, 17, 4]])
    target[1, 3:12, 5:19] = 100 * target[1, 3:12, 5:19] + 7
    own = [] if trims is None else [torch.tensor(trims, dtype=torch.float64), 0.5]
    found = of_both_parts(ScaleShiftInvariantLoss(), box, prediction, target, valid, *own)
    expected = []
    for image, (top, left, bottom, right) in enumerate(box.tolist()):
        inside = np.zeros((17, 22), bool)
        inside[top:bottom, left:right] = True
        p, t, v = (side[image].numpy() for side in (prediction, target, valid))
        parts = [part for part in (inside, ~inside) if part.any()]
        trim = 0.2 if trims is None else trims[image]
        expected.append(sum(part.mean() * reference_trimmed(p, t, v & part, trim) for part in parts))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_a_mixture_predicted_up_to_a_scale_and_shift_of_each_part_has_no_loss():
    _, target, valid = maps(batch=1)
    prediction = 3 * target + 2
    prediction[0, 4:9, 2:20] = 0.1 * target[0, 4:9, 2:20] + 50
    loss = ScaleShiftInvariantLoss()
    assert loss(prediction, target, valid).item() > 0.1
    mixed = of_both_parts(loss, torch.tensor([[4, 2, 9, 20]]), prediction, target, valid)
    assert mixed.item() == pytest.approx(0, abs=1e-12)


def test_trimmed_loss_counts_ties_exactly():
    # residual sizes: 6 of one value among 10, the cut at 8 falls among ties
    target = torch.tensor([[[0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]], dtype=torch.float64)
    prediction = target.clone()
    prediction[0, 0, 9] += 5
    valid = torch.ones(1, 1, 10, dtype=torch.bool)
    loss = ScaleShiftInvariantLoss(gradient_weight=0.0)(prediction, target, valid)
    expected = reference_trimmed(prediction[0].numpy(), target[0].numpy(), valid[0].numpy(), alpha=0.0)
    np.testing.assert_allclose(loss.numpy(), [expected], rtol=1e-12)
    zeros = torch.zeros_like(target)
    zeros[0, 0, 0] = 1.0
    constant = ScaleShiftInvariantLoss(gradient_weight=0.0)(zeros, target, valid)
    expected = reference_trimmed(zeros[0].numpy(), target[0].numpy(), valid[0].numpy(), alpha=0.0)
    np.testing.assert_allclose(constant.numpy(), [expected], rtol=1e-12)


def test_scale_and_shift_of_the_prediction_do_not_matter():
    loss = ScaleShiftInvariantLoss()
    prediction, target, valid = maps()
    expected = loss(prediction, target, valid)
    torch.testing.assert_close(loss(37 * prediction + 1000, target, valid), expected, rtol=1e-8, atol=0)
    assert (loss(prediction**2, target, valid) - expected).abs().max() > 1e-4


def test_trimmed_loss_ignores_the_scale_of_the_target():
    prediction, target, valid = maps()
    loss = ScaleShiftInvariantLoss()
    torch.testing.assert_close(
        loss(prediction, 0.01 * target + 3, valid), loss(prediction, target, valid), rtol=1e-8, atol=0
    )


def test_images_do_not_see_each_other():
    prediction, target, valid = maps()
    loss = ScaleShiftInvariantLoss()
    alone = torch.cat([loss(prediction[i : i + 1], target[i : i + 1], valid[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(loss(prediction, target, valid), alone, rtol=1e-12, atol=0)


def test_gradient_matching_counts_only_pairs_of_valid_pixels():
    prediction, target, valid = maps(share=0.5)
    residual = prediction - target
    expected = [reference_gradient(r, v) for r, v in zip(residual.numpy(), valid.numpy(), strict=True)]
    np.testing.assert_allclose(gradient_matching(residual, valid).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_silog_is_eigens_formula(weight):
    prediction, target, valid = maps()
    prediction, target = prediction + 0.1, target + 0.1
    loss = SILogLoss(weight)(prediction, target, valid)
    for p, t, v, value in zip(prediction.numpy(), target.numpy(), valid.numpy(), loss.numpy(), strict=True):
        g = np.log(p[v]) - np.log(t[v])
        np.testing.assert_allclose(value, (g**2).mean() - weight * g.mean() ** 2, rtol=1e-10)
    torch.testing.assert_close(SILogLoss(weight)(1 / prediction, 1 / target, valid), loss)


LOSSES = [ScaleShiftInvariantLoss(), SILogLoss()]


def degenerate(kind):
    prediction, target, valid = maps(share=1.0)
    prediction, target = prediction + 0.1, target + 0.1
    if kind == "no valid pixel":
        valid[1] = False
    elif kind == "one valid pixel":
        valid[1] = False
        valid[1, 3, 4] = True
    elif kind == "constant target":
        target[1] = 0.3
    elif kind == "constant prediction":
        prediction[1] = 0.3
    elif kind == "zero prediction":
        prediction[1] = 0.0
    elif kind == "NaN where invalid":
        valid[1, :5] = False
        target[1, :5] = torch.nan
        prediction[1, :5] = torch.inf
    return prediction.float().requires_grad_(), target.float(), valid


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("kind", [
    "no valid pixel",
    "one valid pixel",
    "constant target",
    "constant prediction",
    "zero prediction",
    "NaN where invalid",
])  # fmt: skip
def test_degenerate_images_have_finite_losses_and_gradients(loss, kind):
    prediction, target, valid = degenerate(kind)
    value = loss(prediction, target, valid)
    assert value.shape == (3,)
    assert value.isfinite().all()
    value.sum().backward()
    assert prediction.grad.isfinite().all()
    assert (prediction.grad[0] != 0).any()
    assert (prediction.grad[1][~valid[1]] == 0).all()


@pytest.mark.parametrize("kind", ["no valid pixel", "one valid pixel", "constant target"])
def test_an_image_without_shape_contributes_nothing(kind):
    prediction, target, valid = degenerate(kind)
    value = ScaleShiftInvariantLoss()(prediction, target, valid)
    value.sum().backward()
    assert value[1] == 0
    assert (prediction.grad[1] == 0).all()


def test_a_nan_prediction_shows_in_the_loss():
    prediction, target, valid = maps()
    valid[1, 2, 2] = True
    prediction[1, 2, 2] = torch.nan
    for loss in (*LOSSES, ScaleShiftInvariantLoss(gradient_weight=0.0)):
        assert loss(prediction, target + 0.1, valid)[1].isnan()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients_are_those_of_finite_differences(loss):
    prediction, target, valid = maps(batch=2, height=5, width=6, seed=3)
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, target + 0.1, valid), prediction + 0.1, eps=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses_stay_in_float32_under_autocast(loss):
    prediction, target, valid = maps()
    prediction, target = (prediction * 3000 + 300).float(), (target + 0.1).float()
    expected = loss(prediction, target, valid)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(prediction, target, valid)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_segmentation_loss_weighs_the_auxiliary_head():
    generator = torch.Generator().manual_seed(0)
    logits, auxiliary = (torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, 4, (2, 3, 5), generator=generator)
    labels[0, 0] = 255
    value = SegmentationLoss()(logits, auxiliary, labels)
    for image in range(2):
        expected = 0.0
        for scores, weight in ((logits[image].numpy(), 1.0), (auxiliary[image].numpy(), 0.2)):
            terms = []
            for y, x in np.argwhere(labels[image].numpy() != 255):
                terms.append(np.log(np.exp(scores[:, y, x]).sum()) - scores[labels[image, y, x], y, x])
            expected += weight * np.mean(terms)
        np.testing.assert_allclose(float(value[image]), expected, rtol=1e-12)
