import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dpt
from dpt.predict.colours import colourise
from dpt.predict.depth import evaluation_mode, predict_batch, predict_inverse_depth, prepare, to_inverse_depth
from dpt.predict.transforms import normalise, resize_image


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny").eval()


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(64, 64), (48, 100), (301, 77), (5, 9), (1, 1)])
def test_a_prediction_has_the_size_of_its_image(model, shape):
    prediction = predict_inverse_depth(model, picture(*shape))
    assert (prediction.shape, prediction.dtype) == (shape, np.float32)
    assert np.isfinite(prediction).all()
    assert (prediction >= 0).all()


def by_hand(model, image, mode, corners):
    """The prediction for an image of 50x100, which the network sees as 64x128."""
    pixels = torch.from_numpy(resize_image(image, 64, 128))[None]
    with torch.inference_mode():
        found = model(normalise(pixels, model.mean, model.std))
    return F.interpolate(found[:, None], size=(50, 100), mode=mode, align_corners=corners)[0, 0]


def test_a_prediction_is_the_released_recipe(model):
    image = picture(50, 100)
    expected = by_hand(model, image, "bicubic", False)
    np.testing.assert_allclose(predict_inverse_depth(model, image), expected, rtol=1e-5)
    wider = predict_inverse_depth(model, image, target=256)
    assert np.abs(wider - expected.numpy()).max() > 1e-4


@pytest.mark.parametrize(("rule", "corners"), [("bilinear", False), ("bilinear_aligned", True)])
def test_depth_anything_is_brought_to_the_image_bilinearly(model, rule, corners):
    """V1: `F.interpolate(…, align_corners=False)` of run.py; V2: `align_corners=True` of infer_image."""
    other = dpt.create_model("dpt_tiny", output_resize=rule).eval()
    other.load_state_dict(model.state_dict())
    image = picture(50, 100)
    expected = by_hand(model, image, "bilinear", corners)
    np.testing.assert_allclose(predict_inverse_depth(other, image), expected, rtol=1e-6)
    version = "depth_anything_v2_small" if corners else "depth_anything_small"
    assert dpt.zoo.MODELS[version].config.output_resize == rule


def test_a_batch_is_its_images(model):
    images = [picture(64, 96, 0), picture(66, 100, 1), picture(65, 95, 2)]
    batch = predict_batch(model, images)
    for image, prediction in zip(images, batch, strict=True):
        np.testing.assert_allclose(prediction, predict_inverse_depth(model, image), rtol=1e-4)
        assert prediction.shape == image.shape[:2]
    assert np.abs(batch[0].mean() - batch[1].mean()) > 1e-6


def test_other_images_are_refused(model):
    with pytest.raises(ValueError, match="uint8"):
        predict_inverse_depth(model, picture(8, 8).astype(np.float32))
    with pytest.raises(ValueError, match=r"\(8, 8\)"):
        predict_inverse_depth(model, picture(8, 8)[..., 0])
    with pytest.raises(ValueError, match=r"one size in the network, not \[\(64, 64\), \(64, 128\)\]"):
        predict_batch(model, [picture(64, 64), picture(64, 128)])


def test_colours_run_from_dark_to_bright_and_survive_odd_values():
    ramp = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20)
    painted = colourise(ramp)
    assert (painted.shape, painted.dtype) == ((10, 20, 3), np.uint8)
    assert painted[0, 0].sum() < 50 < 500 < painted[-1, -1].astype(int).sum()
    ramp[3, 3], ramp[4, 4] = np.nan, np.inf
    assert (colourise(ramp)[[3, 4], [3, 4]] == 0).all()
    assert (colourise(np.full((4, 4), np.nan)) == 0).all()
    assert len(np.unique(colourise(np.ones((4, 4))))) <= 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_close_and_returned_in_float32(model, dtype):
    image = picture(50, 100)
    expected = predict_inverse_depth(model, image)
    prediction = predict_inverse_depth(dpt.FastDPT(model, dtype=dtype), image)
    assert prediction.dtype == np.float32
    assert 0 < np.abs(prediction - expected).max() < 0.02 * expected.max()


def test_images_are_normalised_to_the_bit_as_in_training(model):
    pixels = resize_image(picture(50, 100), 64, 128)
    expected = normalise(torch.from_numpy(pixels)[None], model.mean, model.std)[0]
    assert torch.equal(prepare(model, picture(50, 100)), expected)


def test_segmentation_models_are_refused():
    model = dpt.create_model("dpt_tiny", task="segmentation", batch_norm=True).eval()
    with pytest.raises(ValueError, match="a segmentation model"):
        predict_inverse_depth(model, picture(8, 8))


def test_inverse_depth_is_that_of_what_a_model_predicts():
    torch.manual_seed(0)
    model = dpt.create_model("dpt_tiny").eval()
    metric = dpt.create_model("dpt_tiny", invert=True).eval()
    metric.load_state_dict(model.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        inverse, depth = model(pixels), metric(pixels)
    assert to_inverse_depth(inverse, model.config) is inverse
    torch.testing.assert_close(to_inverse_depth(depth, metric.config), inverse.clamp(min=1e-8))
    assert to_inverse_depth(torch.zeros(1), metric.config).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_ends_in_the_mode_of_before(training):
    model = torch.nn.Dropout().train(training)
    with evaluation_mode(model):
        assert not model.training
    assert model.training == training
    with pytest.raises(RuntimeError), evaluation_mode(model):
        raise RuntimeError
    assert model.training == training
