from typing import Any

import numpy as np
import pytest
import torch

import dpt
from dpt.feature_alignment import FeatureAlignment

TINY = dpt.create_model("dpt_tiny").config
VIT = "vit_tiny_patch16_224"  # 192 channels


def alignment(encoder: str = VIT, **options: Any) -> FeatureAlignment:
    torch.manual_seed(0)
    return FeatureAlignment(encoder, TINY, pretrained=False, **options)


def images(height: int = 64, width: int = 96, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def test_the_loss_is_that_of_a_count_by_hand(monkeypatch):
    """Four pixels with cosines 1, 0.8, 0.6 and −1: the first is above the margin of 0.85."""
    frozen = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(1, 2, 2, 2)
    features = torch.tensor([[5.0, 0.8, 6.0, -2.0], [0.0, 0.6, 8.0, 0.0]]).view(1, 2, 2, 2)
    align = alignment()
    monkeypatch.setattr(align, "frozen", lambda images, grid: frozen)
    features.requires_grad_()
    losses = align(features, images(count=1))
    assert losses.item() == pytest.approx((0 + 0.2 + 0.4 + 2) / 4)
    losses.sum().backward()
    assert features.grad is not None
    assert (features.grad[0, :, 0, 0] == 0).all()
    assert (features.grad[0, 0, 0, 1] != 0).all()


def test_features_of_the_encoder_itself_have_no_loss():
    align = alignment()
    same = align.frozen(images(), (4, 6))
    assert same.shape == (2, 192, 4, 6)
    assert align(same, images()).tolist() == [0, 0]
    assert align(-same, images()).tolist() == pytest.approx([2, 2], rel=1e-5)


@pytest.mark.parametrize(("encoder", "channels"), [
    ("vit_tiny_patch16_224", 192), ("vit_small_patch14_dinov2", 384), ("resnet18", 512),
    ("swin_tiny_patch4_window7_224", 768),
])  # fmt: skip
def test_any_backbone_is_brought_to_the_grid_of_the_model(encoder, channels):
    align = alignment(encoder)
    assert align.channels == channels
    assert align.frozen(images(count=1), (4, 6)).shape == (1, channels, 4, 6)


def test_the_encoder_sees_images_as_it_was_trained_and_is_not_trained():
    align = alignment()
    assert not any(parameter.requires_grad for parameter in align.parameters())
    assert not align.frozen(images(), (4, 6)).requires_grad
    assert not align.training
    seen = []
    align._encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    align.frozen(images(64, 96), (2, 3))
    expected = (images(64, 96).numpy() / 255 - 0.5) / 0.5  # that of ViT's ImageNet weights
    np.testing.assert_allclose(seen[0].numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_a_model_returns_its_last_features_in_training_only():
    model = dpt.create_model("dpt_tiny", image_size=64).train()
    pixels = torch.rand(1, 3, 64, 96)
    model.returns_features = True
    depth, features = model(pixels)
    assert depth.shape == (1, 64, 96)
    assert torch.equal(features, model.backbone(pixels)[-1].features)
    assert model.eval()(pixels).shape == (1, 64, 96)
