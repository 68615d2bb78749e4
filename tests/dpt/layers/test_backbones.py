"""Taps against the networks they are taken from, untouched as timm builds them."""

from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F

import dpt
from dpt.layers.backbones import create_backbone

SHALLOW = {"img_size": 64, "embed_dim": 64, "depth": 4, "num_heads": 2}


def seeded(function, *arguments, **settings):
    torch.manual_seed(0)
    return function(*arguments, **settings).eval()


def with_positions(vit):
    """Position embeddings start at zero in some networks; make them matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        vit.pos_embed.normal_()
    return vit


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_base_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"]
)
def test_taps_are_the_outputs_of_the_layers(name):
    arguments = {**SHALLOW, "img_size": 70 if "patch14" in name else 64}
    backbone = create_backbone(name, (1, 2, 3, 4), arguments=arguments).eval()
    untouched = timm.create_model(name, num_classes=0, **arguments).eval()
    with_positions(backbone.vit)
    untouched.load_state_dict(backbone.vit.state_dict(), strict=False)  # it has a norm more
    images = torch.randn(2, 3, *untouched.patch_embed.img_size)
    expected = untouched.forward_intermediates(images, return_prefix_tokens=True, intermediates_only=True)
    for tap, (features, prefix) in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(tap.features, features)
        torch.testing.assert_close(tap.prefix, prefix)


@torch.no_grad()
def test_hybrid_taps_are_the_stages_and_the_layers():
    name, arguments = "vit_base_r50_s16_384", {**SHALLOW, "img_size": 96}
    backbone = create_backbone(name, ("R0", "R1", 2, 4), arguments=arguments).eval()
    untouched = timm.create_model(name, num_classes=0, **arguments).eval()
    with_positions(backbone.vit)
    untouched.load_state_dict(backbone.vit.state_dict(), strict=False)
    images = torch.randn(1, 3, 96, 96)
    taps = backbone(images)
    x = untouched.patch_embed.backbone.stem(images)
    for stage in (0, 1):
        x = untouched.patch_embed.backbone.stages[stage](x)
        torch.testing.assert_close(taps[stage].features, x)
        assert taps[stage].prefix is None
    layers = untouched.forward_intermediates(images, indices=[1, 3], intermediates_only=True)
    for tap, features in zip(taps[2:], layers, strict=True):
        torch.testing.assert_close(tap.features, features, rtol=1e-4, atol=1e-5)
    sizes = [(256, 24, 24), (512, 12, 12), (64, 6, 6), (64, 6, 6)]
    assert [tuple(tap.features.shape[1:]) for tap in taps] == sizes


@torch.no_grad()
def test_positions_are_resampled_bilinearly_to_the_image():
    backbone = create_backbone("vit_tiny_patch16_224", (1, 2, 3, 4), arguments=SHALLOW).eval()
    with_positions(backbone.vit)
    prefix, positions = backbone.positions(3, 7)
    table = backbone.vit.pos_embed
    torch.testing.assert_close(prefix, table[:, :1])
    grid = table[:, 1:].reshape(1, 4, 4, 64).permute(0, 3, 1, 2)
    # the value at a pixel's centre, by hand: rows of 4 at the centres of 3, columns of 4 at those of 7
    y, x = (1 + 0.5) * 4 / 3 - 0.5, (5 + 0.5) * 4 / 7 - 0.5
    top, left = int(y), int(x)
    fy, fx = y - top, x - left
    corners = grid[0, :, top : top + 2, left : left + 2]
    upper = corners[:, 0, 0] * (1 - fx) + corners[:, 0, 1] * fx
    lower = corners[:, 1, 0] * (1 - fx) + corners[:, 1, 1] * fx
    expected = upper * (1 - fy) + lower * fy
    torch.testing.assert_close(positions[0, 1 * 7 + 5], expected)
    torch.testing.assert_close(backbone.positions(4, 4)[1], table[:, 1:])


@torch.no_grad()
@pytest.mark.parametrize(("standardisation", "formula"), [
    ("released", lambda w, mean, std: (w - mean) / (std + 1e-5)),  # timm 0.4.5, layers/std_conv.py
    ("timm", lambda w, mean, std: (w - mean) / (std**2 + 1e-8).sqrt()),
])  # fmt: skip
def test_weights_of_the_hybrid_are_standardised_as_asked(standardisation, formula):
    arguments = {**SHALLOW, "img_size": 64}
    settings = {"arguments": arguments, "standardisation": standardisation}
    name = "vit_base_r50_s16_384"
    backbone = seeded(create_backbone, name, ("R0", "R1", 2, 4), **settings).double()
    untouched = timm.create_model(name, num_classes=0, **arguments).double().eval()
    untouched.load_state_dict(backbone.vit.state_dict(), strict=False)
    for module in untouched.modules():
        if isinstance(module, timm.layers.StdConv2dSame):
            w = module.weight
            mean, std = w.mean(dim=(1, 2, 3), keepdim=True), w.std(dim=(1, 2, 3), keepdim=True, correction=0)
            module.weight.copy_(formula(w, mean, std))
            module.forward = partial(plain_convolution, module)
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    expected = untouched.patch_embed(images)
    found = backbone.embed(images)[1].flatten(1, 2)
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def plain_convolution(module, x):
    """A convolution with "same" padding, without standardisation."""
    steps = zip(x.shape[-2:], module.kernel_size, module.stride, strict=True)
    high, wide = (max(0, stride * (-(-side // stride) - 1) + kernel - side) for side, kernel, stride in steps)
    x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    return F.conv2d(x, module.weight, module.bias, module.stride)


@torch.no_grad()
def test_the_final_norm_is_applied_only_where_asked():
    plain = create_backbone("vit_tiny_patch16_224", (1, 2, 3, 4), arguments=SHALLOW).eval()
    normed = create_backbone("vit_tiny_patch16_224", (1, 2, 3, 4), arguments=SHALLOW, final_norm=True).eval()
    assert not any("vit.norm." in key for key in plain.state_dict())
    normed.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    for without, tap in zip(plain(images), normed(images), strict=True):
        expected = F.layer_norm(without.features.permute(0, 2, 3, 1), (64,), eps=1e-6).permute(0, 3, 1, 2)
        torch.testing.assert_close(tap.features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("backbone", "size", "taps", "readout"), [
    ("vit_small_patch14_dinov2", (70, 98), (3, 6, 9, 12), "project"),
    ("vit_small_patch14_reg4_dinov2", (70, 98), (3, 6, 9, 12), "project"),
    ("vit_small_patch16_dinov3", (64, 96), (3, 6, 9, 12), "project"),
    ("eva02_tiny_patch14_224", (56, 84), (3, 6, 9, 12), "project"),
    ("vit_base_patch16_siglip_224", (64, 96), (3, 6, 9, 12), "ignore"),
    ("resnet18", (64, 96), ("R0", "R1", "R2", "R3"), "project"),
    ("vit_hybrid_small", (64, 96), (1, 2, 3, 4), "project"),
])  # fmt: skip
def test_any_timm_backbone_trains_without_dead_parameters(backbone, size, taps, readout):
    model = seeded(dpt.create_model, "dpt_tiny", backbone=backbone).train()
    assert (model.config.taps, model.config.readout) == (taps, readout)
    described = timm.get_pretrained_cfg(backbone)
    assert model.mean == (tuple(described.mean) if described else (0.485, 0.456, 0.406))
    output = model(torch.randn(2, 3, *size))
    assert output.shape == (2, *size)
    output.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_small_hybrid_is_tapped_at_four_strides():
    model = seeded(dpt.create_model, "dpt_hybrid_small").train()
    taps = model.backbone(torch.randn(2, 3, 64, 96))
    # strides 4, 8, 16 and 16, as of DPT-Hybrid
    shapes = [(2, 32, 16, 24), (2, 48, 8, 12), (2, 96, 4, 6), (2, 96, 4, 6)]
    assert [tuple(tap.features.shape) for tap in taps] == shapes
    assert sum(parameter.numel() for parameter in model.parameters()) < 1e6
    model(torch.randn(2, 3, 64, 96)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        dpt.create_model("dpt_hybrid_small", pretrained=True)


def test_a_backbone_without_readout_token_needs_ignore():
    with pytest.raises(ValueError, match="no readout token"):
        dpt.create_model("dpt_tiny", backbone="vit_base_patch16_siglip_224", readout="add")


@pytest.mark.parametrize(("name", "reason"), [
    ("beit_base_patch16_224", "is not a transformer that takes images of any size"),
    ("convnext_atto", "is not .* a network of convolutional stages"),
    ("samvit_base_patch16", r"expected stages at strides 4, 8, 16 and 32, not \[16, 16, 16, 16\]"),
])  # fmt: skip
def test_backbones_that_cannot_be_tapped_are_refused(name, reason):
    with torch.device("meta"), pytest.raises(ValueError, match=reason):
        dpt.create_model("dpt_tiny", backbone=name)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_checkpointing_changes_memory_not_numbers(name):
    model = seeded(dpt.create_model, "dpt_tiny", backbone=name, taps=(1, 2, 3, 4)).train()
    images = torch.randn(2, 3, 64, 64)

    def gradients():
        model.zero_grad()
        model(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    saved = []
    model.set_checkpointing()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        got = gradients()
    model.set_checkpointing(False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        gradients()
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert sum(saved) < 0.8 * sum(kept)
