import cv2
import numpy as np
import pytest
import torch

from dpt.predict.transforms import network_size, normalise, resize_image
from dpt.zoo import MODELS


@pytest.mark.parametrize(("width", "height", "rule", "expected"), [
    # sizes that the released code gives, width by height
    (640, 480, "minimal", (512, 384)),
    (1242, 375, "minimal", (1280, 384)),
    (1216, 352, "minimal", (1312, 384)),
    (1024, 436, "minimal", (896, 384)),
    (6048, 4032, "minimal", (576, 384)),
    (200, 800, "minimal", (96, 384)),
    (640, 480, "upper_bound", (384, 288)),
    (1242, 375, "upper_bound", (384, 128)),
])  # fmt: skip
def test_sizes_are_those_of_the_released_code(width, height, rule, expected):
    assert network_size(height, width, rule=rule) == expected[::-1]


@pytest.mark.parametrize(("name", "width", "height", "expected"), [
    ("dpt_hybrid_kitti", 1242, 375, (1216, 352)),
    ("dpt_hybrid_kitti", 1216, 352, (1216, 352)),
    ("dpt_hybrid_nyu", 640, 480, (640, 480)),
    ("dpt_hybrid_nyu", 480, 640, (352, 480)),
    ("dpt_hybrid_nyu", 1920, 1080, (864, 480)),
])  # fmt: skip
def test_metric_models_have_a_width_and_a_height(name, width, height, expected):
    """As `Resize(net_w, net_h, resize_method="minimal")` of the authors: run_monodepth.py, transforms.py."""
    net_width, net_height = {"dpt_hybrid_kitti": (1216, 352), "dpt_hybrid_nyu": (640, 480)}[name]
    scale_height, scale_width = net_height / height, net_width / width
    scale = scale_width if abs(1 - scale_width) < abs(1 - scale_height) else scale_height
    assert expected == tuple(int(np.round(scale * side / 32) * 32) for side in (width, height))
    config = MODELS[name].config
    found = network_size(height, width, config.image_size, config.resize_rule)
    assert found == expected[::-1]


@pytest.mark.parametrize("rule", ["minimal", "lower_bound", "upper_bound"])
@pytest.mark.parametrize("divisor", [32, 14])
def test_rules_keep_their_bounds(rule, divisor):
    generator = np.random.default_rng(0)
    target = 12 * divisor
    for height, width in generator.integers(1, 3000, size=(300, 2)).tolist():
        size = network_size(height, width, target, rule, divisor)
        assert all(side % divisor == 0 and side >= divisor for side in size)
        if rule == "lower_bound":
            assert min(size) >= target
        if rule == "upper_bound":
            assert max(size) <= target


def test_rounding_is_half_to_even():
    # 80 / 32 = 2.5 and 112 / 32 = 3.5
    assert network_size(384, 80, target=384) == (384, 64)
    assert network_size(384, 112, target=384) == (384, 128)


def test_what_cannot_be_resized_is_refused():
    with pytest.raises(ValueError, match=r"'largest'.*minimal, lower_bound, upper_bound"):
        network_size(4, 4, rule="largest")
    with pytest.raises(ValueError, match="0 by 4"):
        network_size(0, 4)


def test_resizing_is_cubic_without_clipping():
    image = np.zeros((10, 12, 3), np.uint8)
    image[:, 6:] = 255
    resized = resize_image(image, 20, 30)
    assert (resized.shape, resized.dtype) == ((20, 30, 3), np.float32)
    assert resized.max() > 1.01
    assert resized.min() < -0.01
    np.testing.assert_array_equal(
        resized, cv2.resize(image.astype(np.float32) / 255, (30, 20), interpolation=cv2.INTER_CUBIC)
    )
    np.testing.assert_array_equal(resize_image(image, 10, 12), image.astype(np.float32) / 255)


def test_normalising_takes_bytes_and_floats_in_both_layouts():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    expected = (images.double().permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(
        std
    ).view(3, 1, 1)
    for layout in (images, images.permute(0, 3, 1, 2), images / 255, (images / 255).permute(0, 3, 1, 2)):
        normalised = normalise(layout, mean, std)
        assert normalised.dtype == torch.float32
        torch.testing.assert_close(normalised.double(), expected.double(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"not \(2, 4, 5\)"):
        normalise(images[..., 0], mean, std)
