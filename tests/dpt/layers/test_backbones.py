"""Taps against the networks they are taken from, untouched as timm builds them."""

from functools import partial
from random import Random

import pytest
import timm
import torch
import torch.nn.functional as F

import dpt
from dpt.layers.backbones import create_backbone, natural_choices
from dpt.layers.beit import relative_index, resampled
from dpt.layers.catalogue import EXAMPLES, describe, families

QUICK = Random(0).sample([name for name in EXAMPLES if name.startswith("test_")], 3)
"""Networks that timm keeps for tests."""

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


@pytest.mark.heavy
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


@pytest.mark.heavy
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


@pytest.mark.heavy
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
    with pytest.raises(ValueError, match=r"cannot build vit_hybrid_small .*No pretrained weights"):
        dpt.create_model("dpt_hybrid_small", pretrained=True)


@pytest.mark.heavy
def test_a_backbone_without_readout_token_needs_ignore():
    with pytest.raises(ValueError, match="no readout token"):
        dpt.create_model("dpt_tiny", backbone="vit_base_patch16_siglip_224", readout="add")


@pytest.mark.parametrize(("name", "reason"), [
    ("convit_tiny", r"cannot take images of any size \(Input height"),
    ("gemma4_vit_167m", r"cannot take images of any size \(it computes sizes from values of tensors"),
    ("levit_128s", r"expected stages at strides 4, 8, 16 and 32, not \[16, 32, 64\]"),
    ("inception_v3", r"gives maps of \[\(76, 52\), .* for images of \(320, 224\)"),
])  # fmt: skip
def test_backbones_that_cannot_be_tapped_are_refused(name, reason):
    with torch.device("meta"), pytest.raises(ValueError, match=reason):
        dpt.create_model("dpt_tiny", backbone=name)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"depth": 100_000}, "depth is 100000, expected a number from 0 to 256"),
    ({"depths": [2] * 65}, "depths is .*list of at most 64"),
    ({"checkpoint_path": "/etc/passwd"}, "there is no 'checkpoint_path'; choose from depth, "),
    ({"img_size": "64"}, "img_size is 64, expected a number"),
    ({"embed_dim": float("nan")}, "embed_dim is nan"),
    ({"layers": [[2, 2], [2]]}, r"layers is \[\[2, 2\], \[2\]\]"),
])  # fmt: skip
def test_arguments_are_checked_before_anything_is_built(arguments, message):
    for backbone in ({}, {"backbone": "vit_tiny_patch16_224"}):
        with pytest.raises(ValueError, match=f"backbone_arguments: {message}"):
            dpt.create_model("dpt_tiny", **backbone, backbone_arguments=arguments)


@pytest.mark.parametrize(("setting", "value"), [
    ("features", 10**9), ("channels", (10**9,) * 4), ("classes", 0), ("image_size", (10**6, 384)),
])  # fmt: skip
def test_sizes_are_checked_before_anything_is_built(setting, value):
    with pytest.raises(ValueError, match=f"{setting}: .*expected from 1 to "):
        dpt.create_model("dpt_tiny", **{setting: value})


# ---- networks of stages, and others


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "hiera_tiny_224", "beit_base_patch16_224"])
def test_at_the_trained_size_taps_are_those_of_timm(name):
    """Each is changed to take any size: window partition, order of tokens, relative positions."""
    layers = name.startswith("beit")
    plain = seeded(timm.create_model, name)
    stir(plain)
    images = torch.randn(1, 3, 224, 224)
    indices = [2, 5, 8, 11] if layers else [0, 1, 2, 3]
    expected = plain.forward_intermediates(images, indices=indices, intermediates_only=True)
    backbone = create_backbone(name, (3, 6, 9, 12) if layers else ("R0", "R1", "R2", "R3"))
    # the same weights, in the order of their definition, but the tables that have a new place
    theirs = dict(plain.named_parameters())
    for key, parameter in backbone.named_parameters():
        key = key.removeprefix("cnn.").removeprefix("model.").removeprefix("beit.").removeprefix("vit.")
        if key.startswith("tables."):
            key = f"blocks.{key.removeprefix('tables.')}.attn.relative_position_bias_table"
        key = key.replace("layers_", "layers.")
        value = theirs[key]
        parameter.copy_(value if value.shape == parameter.shape else value.transpose(1, 2).view_as(parameter))
    for tap, features in zip(backbone.eval()(images), expected, strict=True):
        torch.testing.assert_close(tap.features, features, rtol=1e-4, atol=1e-4)


def stir(network):
    """Give random values to tables of positions, which start at zero."""
    for key, parameter in network.named_parameters():
        if "pos_embed" in key or "relative_position" in key:
            parameter.normal_()


def test_relative_positions_by_hand():
    height, width = 2, 3
    index = relative_index(height, width, torch.device("cpu"))
    assert index.shape == (7, 7)
    assert (index[0, 0], index[0, 1], index[1, 0]) == (17, 15, 16)  # of 3 · 5 + 3 rows
    query, key = 1 + 0 * width + 2, 1 + 1 * width + 0  # (0, 2) and (1, 0): one row up, two columns right
    assert index[query, key] == (0 - 1 + 1) * 5 + (2 - 0 + 2)
    table = torch.arange(9.0)[:, None].repeat(1, 2)
    table = torch.cat([table, torch.tensor([[50.0, 51], [60, 61], [70, 71]])])
    larger = resampled(table, (2, 2), (2, 3))  # 3 × 3 distances → 3 × 5, columns at (i + ½) · 3/5 − ½
    torch.testing.assert_close(larger[:5, 0], torch.tensor([0, 0.4, 1, 1.6, 2]))
    torch.testing.assert_close(larger[-3:], table[-3:])


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EXAMPLES
])  # fmt: skip
def test_every_family_of_timm_takes_any_size_and_trains(name):
    model = seeded(dpt.create_model, "dpt_tiny", backbone=name).train()
    side = model.size_divisor
    output = model(torch.randn(2, 3, 2 * side, 3 * side))
    assert output.shape == (2, 2 * side, 3 * side)
    output.square().mean().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.slow
def test_no_other_family_of_timm_works():
    left = set(timm.list_modules()) - set(families()) - {"small_hybrid"}  # our own
    for module in left:
        for name in timm.list_models(module=module)[:1]:
            with pytest.raises(ValueError, match="backbone: "):
                natural_choices(name, {})


@pytest.mark.heavy
def test_networks_are_described():
    found = {one.name: one for one in describe("test_convnext*") if not isinstance(one, str)}
    one = found["test_convnext.r160_in1k"]
    assert (one.strides, one.licence) == ((4, 8, 16, 32), "apache-2.0")
    # 3·24·4² + 24 and so on: all of timm's but the classifier and its norm
    whole = timm.create_model("test_convnext", num_classes=0)
    left_out = sum(p.numel() for key, p in whole.named_parameters() if key.startswith("head."))
    assert one.parameters == sum(p.numel() for p in whole.parameters()) - left_out
    assert next(describe("levit_128s")).startswith("backbone: expected stages at strides")
    assert families()["convnext"] == ("test_convnext", len(timm.list_models(module="convnext")))


@pytest.mark.heavy
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
