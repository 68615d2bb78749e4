import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dpt
from dpt.predict.classes import PAPER_SCALES, predict_classes, scaled_size, window_starts
from dpt.predict.depth import network_input
from dpt.predict.transforms import normalise

CROP = 64


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    torch.manual_seed(0)
    settings = {"task": "segmentation", "classes": 7, "auxiliary": True, "batch_norm": True}
    return dpt.create_model("dpt_tiny", **settings).eval()


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs: neighbouring pixels alike, as in photos."""
    small = np.random.default_rng(seed).random((8, 8, 3), np.float32)
    big = F.interpolate(torch.from_numpy(small).permute(2, 0, 1)[None], size=(height, width), mode="bicubic")
    return (big[0].permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy()


@torch.no_grad()
def written_down(model: dpt.DPT, image: np.ndarray, scales: tuple[float, ...], flip: bool) -> torch.Tensor:
    """The protocol as the paper's reference states it, window by window and pixel by pixel: (K, H, W)."""
    height, width = image.shape[:2]
    total = torch.zeros(7, height, width)
    for scale in scales:
        longer = math.ceil(round(CROP * 520 / 480) * scale)
        h, w = (longer, int(width * longer / height + 0.5)) if height > width else (
            int(height * longer / width + 0.5), longer,
        )  # fmt: skip
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        pixels = F.interpolate(pixels, size=(h, w), mode="bilinear", align_corners=True)
        scores, count = torch.zeros(7, h, w), torch.zeros(h, w)
        stride = int(CROP * 2 / 3)
        for row in range(math.ceil(max(0, h - CROP) / stride) + 1):
            for column in range(math.ceil(max(0, w - CROP) / stride) + 1):
                top, left = row * stride, column * stride
                part = pixels[:, :, top : top + CROP, left : left + CROP]
                window = torch.zeros(1, 3, CROP, CROP)
                window[:, :, : part.shape[2], : part.shape[3]] = part
                window = normalise(window, model.mean, model.std)
                found = model(window).softmax(1)[0]
                if flip:
                    found = (found + model(window.flip(-1)).softmax(1)[0].flip(-1)) / 2
                scores[:, top : top + CROP, left : left + CROP] += found[:, : part.shape[2], : part.shape[3]]
                count[top : top + CROP, left : left + CROP] += 1
        assert count.min() >= 1
        total += F.interpolate(
            (scores / count)[None], size=(height, width), mode="bilinear", align_corners=True
        )[0]
    return total


@pytest.mark.parametrize("size", [(50, 90), (90, 50), (30, 200), (70, 70)])
@pytest.mark.parametrize("flip", [False, True])
def test_sliding_windows_are_the_protocol(model, size, flip):
    image = photo(*size)
    scores = written_down(model, image, PAPER_SCALES, flip)
    (found,) = predict_classes(model, [image], scales=PAPER_SCALES, flip=flip)
    assert (found.shape, found.dtype) == (size, np.uint8)
    assert len(np.unique(found)) > 1
    best = scores.max(dim=0).values
    chosen = scores.gather(0, torch.from_numpy(found).long()[None])[0]
    # Where two classes are equally likely, rounding decides.
    assert (best - chosen).max() < 1e-4
    assert (scores.argmax(0).numpy() == found).mean() > 0.999


@torch.no_grad()
def test_one_pass_takes_the_whole_image(model):
    images = [photo(48, 80), photo(48, 80, seed=1)]
    found = predict_classes(model, images)
    logits = model(network_input(model, images))
    for one, prediction in zip(logits, found, strict=True):
        scores = F.interpolate(one.softmax(0)[None], size=(48, 80), mode="bilinear", align_corners=True)[0]
        assert (scores.argmax(0).numpy() == prediction).mean() > 0.999
    mirrored = predict_classes(model, [image[:, ::-1] for image in images], flip=True)
    both = predict_classes(model, images, flip=True)
    for one, other in zip(both, mirrored, strict=True):
        assert (one == other[:, ::-1]).mean() > 0.999


def test_bands_of_a_large_image_fit_together(model, monkeypatch):
    image = photo(50, 90)
    (whole,) = predict_classes(model, [image], scales=(0.5, 1.0))
    monkeypatch.setattr("dpt.predict.classes._PIXELS_AT_ONCE", 90 * 7)
    (banded,) = predict_classes(model, [image], scales=(0.5, 1.0))
    np.testing.assert_array_equal(whole, banded)


def test_sizes_at_the_papers_crop():
    assert scaled_size(512, 683, 480, 1.0) == (390, 520)
    assert scaled_size(683, 512, 480, 0.5) == (260, 195)
    assert scaled_size(512, 683, 480, 1.75) == (682, 910)
    assert window_starts(260, 480) == window_starts(480, 480) == [0]
    assert window_starts(520, 480) == [0, 320]
    assert window_starts(910, 480) == [0, 320, 640]


def test_models_of_depth_are_refused():
    with pytest.raises(ValueError, match="this is a depth model"):
        predict_classes(dpt.create_model("dpt_tiny").eval(), [photo(48, 80)])
