"""Published checkpoints: names written out here by hand, wrappers, file names, and refusals."""

import dataclasses
import re

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt.weights.files import from_tensors, read_tensors
from dpt.weights.key_maps import KEY_MAPS
from dpt.zoo import MODELS


def on_meta(name, **overrides):
    with torch.device("meta"):
        return dpt.create_model(name, **overrides)


def authors_keys(layers, hybrid=False, segmentation=False):
    """Names and shapes of the authors' checkpoint of Base size, as its code creates them."""
    vit, d = "pretrained.model.", 768
    patches = (d, 1024, 1, 1) if hybrid else (d, 3, 16, 16)
    shapes = {f"{vit}cls_token": (1, 1, d), f"{vit}pos_embed": (1, 577, d)}
    shapes |= {f"{vit}patch_embed.proj.weight": patches, f"{vit}patch_embed.proj.bias": (d,)}
    shapes |= {f"{vit}norm.weight": (d,), f"{vit}norm.bias": (d,)}
    shapes |= {f"{vit}head.weight": (1000, d), f"{vit}head.bias": (1000,)}
    for i in range(layers):
        block = f"{vit}blocks.{i}."
        sizes = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for part, (rows, columns) in sizes.items():
            shapes |= {f"{block}{part}.weight": (rows, columns), f"{block}{part}.bias": (rows,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}{norm}.weight": (d,), f"{block}{norm}.bias": (d,)}
    channels = (256, 512, 768, 768) if hybrid else (96, 192, 384, 768)
    if hybrid:
        shapes |= resnet_keys(f"{vit}patch_embed.backbone.")
    for k, c in enumerate(channels, start=1):
        shapes[f"scratch.layer{k}_rn.weight"] = (256, c, 3, 3)
        post = f"pretrained.act_postprocess{k}."
        if not hybrid or k > 2:
            shapes |= {f"{post}0.project.0.weight": (d, 2 * d), f"{post}0.project.0.bias": (d,)}
            shapes |= {f"{post}3.weight": (c, d, 1, 1), f"{post}3.bias": (c,)}
            kernel = {1: 4, 2: 2, 4: 3}.get(k)
            if kernel:
                shapes |= {f"{post}4.weight": (c, c, kernel, kernel), f"{post}4.bias": (c,)}
        block = f"scratch.refinenet{k}."
        shapes |= {f"{block}out_conv.weight": (256, 256, 1, 1), f"{block}out_conv.bias": (256,)}
        for unit in ("resConfUnit1", "resConfUnit2"):
            for n in (1, 2):
                shapes[f"{block}{unit}.conv{n}.weight"] = (256, 256, 3, 3)
                if segmentation:
                    shapes |= batch_norm(f"{block}{unit}.bn{n}.", 256)
                else:
                    shapes[f"{block}{unit}.conv{n}.bias"] = (256,)
    if segmentation:
        for head in ("scratch.output_conv", "auxlayer"):
            shapes |= {f"{head}.0.weight": (256, 256, 3, 3), f"{head}.4.weight": (150, 256, 1, 1)}
            shapes |= {f"{head}.4.bias": (150,)} | batch_norm(f"{head}.1.", 256)
    else:
        for index, rows, columns, kernel in ((0, 128, 256, 3), (2, 32, 128, 3), (4, 1, 32, 1)):
            shapes[f"scratch.output_conv.{index}.weight"] = (rows, columns, kernel, kernel)
            shapes[f"scratch.output_conv.{index}.bias"] = (rows,)
    return shapes


def batch_norm(prefix, channels):
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}{name}": (channels,) for name in names} | {f"{prefix}num_batches_tracked": ()}


def resnet_keys(prefix):
    shapes = {f"{prefix}stem.conv.weight": (64, 3, 7, 7)}
    shapes |= {f"{prefix}stem.norm.{kind}": (64,) for kind in ("weight", "bias")}
    inputs = 64
    for stage, (blocks, out) in enumerate(((3, 256), (4, 512), (9, 1024))):
        for block in range(blocks):
            name, middle = f"{prefix}stages.{stage}.blocks.{block}.", out // 4
            convs = {"1": (middle, inputs, 1), "2": (middle, middle, 3), "3": (out, middle, 1)}
            for n, (rows, columns, kernel) in convs.items():
                shapes[f"{name}conv{n}.weight"] = (rows, columns, kernel, kernel)
                shapes |= {f"{name}norm{n}.{kind}": (rows,) for kind in ("weight", "bias")}
            if block == 0:
                shapes[f"{name}downsample.conv.weight"] = (out, inputs, 1, 1)
                shapes |= {f"{name}downsample.norm.{kind}": (out,) for kind in ("weight", "bias")}
            inputs = out
    return shapes


def scriptable(shapes):
    """The authors' second layout: readout beside the other operations, which are then counted from 0."""
    renamed = {}
    for key, shape in shapes.items():
        key = re.sub(r"act_postprocess(\d)\.0\.project", r"readout_oper\1.0.project", key)
        key = re.sub(r"act_postprocess(\d)\.3\.", r"act_postprocess\1.0.", key)
        renamed[re.sub(r"act_postprocess(\d)\.4\.", r"act_postprocess\1.1.", key)] = shape
    return renamed


def filled(shapes):
    """Tensors of which no two are equal, without spending memory on them."""
    return {
        key: torch.full((), float(number), dtype=torch.float32).expand(shape)
        for number, (key, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize(("file_name", "arguments", "tensors", "name"), [
    ("dpt_base.pt", {}, 224, "dpt_base"),
    ("dpt_hybrid-midas-501f0c75.pt", {"hybrid": True}, 368, "dpt_hybrid"),
    ("dpt_hybrid_kitti-cb926ef4.pt", {"hybrid": True}, 368, "dpt_hybrid_kitti"),
    ("dpt_hybrid_nyu-2ce69ec7.pt", {"hybrid": True}, 368, "dpt_hybrid_nyu"),
    ("dpt_hybrid-ade20k-53898607.pt", {"hybrid": True, "segmentation": True}, 442, "dpt_hybrid_ade20k"),
])  # fmt: skip
@pytest.mark.parametrize("rename", [dict, scriptable])
def test_authors_checkpoints_are_recognised_and_fit(file_name, arguments, tensors, name, rename):
    shapes = rename(authors_keys(12, **arguments))
    assert len(shapes) == tensors  # as published
    checkpoint = filled(shapes)
    model = from_tensors(checkpoint, file_name)
    formula = "released" if "hybrid" in name else "timm"
    assert model.config == dataclasses.replace(MODELS[name].config, weight_standardisation=formula)

    # every tensor that is used arrives, and each at one place
    layout = "authors" if rename is dict else "authors-scriptable"
    back = KEY_MAPS[layout].write(model.state_dict(), model.config)
    dropped = shapes.keys() - back.keys()
    kinds = ("conv", "bn") if "segmentation" in arguments else ("conv",)
    unused = {f"scratch.refinenet4.resConfUnit1.{kind}{n}" for kind in kinds for n in (1, 2)}
    expected = {"pretrained.model.norm", "pretrained.model.head", *unused}
    assert {re.sub(r"\.[^.]+$", "", key) for key in dropped} == expected
    for key, tensor in back.items():
        assert torch.equal(tensor, checkpoint[key].to(tensor.dtype)), key


def test_names_end_up_where_they_belong():
    """Spot checks of the maps by hand, so that two wrong tables cannot cancel out."""
    expected = {
        "reassemble.stages.0.resample.weight": "pretrained.act_postprocess1.4.weight",
        "reassemble.stages.3.project.bias": "pretrained.act_postprocess4.3.bias",
        "reassemble.stages.2.readout.project.weight": "pretrained.act_postprocess3.0.project.0.weight",
        "reassemble.adapt.0.weight": "scratch.layer1_rn.weight",
        "fusion.blocks.0.skip.conv2.bias": "scratch.refinenet1.resConfUnit1.conv2.bias",
        "fusion.blocks.3.refine.conv1.weight": "scratch.refinenet4.resConfUnit2.conv1.weight",
        "fusion.blocks.2.project.weight": "scratch.refinenet3.out_conv.weight",
        "head.conv3.weight": "scratch.output_conv.4.weight",
    }
    shapes = authors_keys(12)
    checkpoint = filled(shapes)
    state = from_tensors(checkpoint, "dpt_base.pt").state_dict()
    for ours, theirs in expected.items():
        assert torch.equal(state[ours], checkpoint[theirs]), ours


@pytest.mark.heavy
def test_midas_checkpoints_are_recognised_and_fit():
    model = on_meta("midas_v21")
    tensors = {key: torch.zeros(t.shape) for key, t in model.state_dict().items()}
    theirs = KEY_MAPS["midas"].write(tensors, model.config)
    backbone = ("layer1.0.weight", "layer1.1.running_mean", "layer1.4.2.conv3.weight")
    backbone += ("layer4.0.downsample.1.weight",)
    decoder = ("refinenet1.resConfUnit1.conv1.bias", "layer4_rn.weight", "output_conv.2.weight")
    assert {f"pretrained.{key}" for key in backbone} | {f"scratch.{key}" for key in decoder} <= theirs.keys()
    unit, kinds = "scratch.refinenet4.resConfUnit1.", ("weight", "bias")
    unused = {f"{unit}conv{n}.{kind}" for n in (1, 2) for kind in kinds}
    assert len(theirs.keys() | unused) == 666  # as published
    theirs |= {key: torch.zeros(1) for key in unused}
    assert from_tensors(theirs, "midas_v21_384.pt").config == model.config


@pytest.mark.parametrize(("file_name", "name", "max_depth"), [
    ("depth_anything_vits14.pth", "depth_anything_small", None),
    ("depth_anything_v2_vits.pth", "depth_anything_v2_small", None),
    ("depth_anything_v2_metric_hypersim_vits.pth", "depth_anything_v2_small", 20.0),
    ("depth_anything_v2_metric_vkitti_vits.pth", "depth_anything_v2_small", 80.0),
])  # fmt: skip
def test_versions_of_depth_anything_are_told_apart_by_file_name(file_name, name, max_depth):
    model = on_meta(name)
    tensors = {key: torch.zeros(t.shape) for key, t in model.state_dict().items()}
    theirs = KEY_MAPS["depth-anything"].write(tensors, model.config)
    theirs["pretrained.mask_token"] = torch.zeros(1, 384)
    config = from_tensors(theirs, file_name).config
    assert (config.max_depth, config.taps) == (max_depth, MODELS[name].config.taps)
    with pytest.raises(ValueError, match="name the model"):
        from_tensors(theirs, "finetuned.pth")
    assert from_tensors(theirs, "finetuned.pth", name).config == MODELS[name].config


def test_the_large_depth_anything_has_the_published_taps():
    # 0-based: V1 takes the last four of 24, V2 takes 4, 11, 17, 23
    assert MODELS["depth_anything_large"].config.taps == (21, 22, 23, 24)
    assert MODELS["depth_anything_v2_large"].config.taps == (5, 12, 18, 24)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny")


def wrappers(tensors):
    parallel = {f"module.{key}": tensor for key, tensor in tensors.items()}
    return {
        "plain": tensors,
        "model": {"model": tensors, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        "state_dict": {"state_dict": parallel},
        "module": parallel,
    }


@pytest.mark.parametrize("wrapper", ["plain", "model", "state_dict", "module"])
def test_wrappers_are_taken_off(tiny, tmp_path, wrapper):
    tensors = KEY_MAPS["authors"].write(tiny.state_dict(), tiny.config)
    torch.save(wrappers(tensors)[wrapper], tmp_path / "tiny.pth")
    model = dpt.load_weights(tmp_path / "tiny.pth", "dpt_tiny")
    for key, tensor in tiny.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_half_precision_files_become_float32_models(tiny, tmp_path):
    half = {key: tensor.half() for key, tensor in tiny.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    model = dpt.load_weights(tmp_path / "half.safetensors", "dpt_tiny")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_our_own_folder_and_file_are_read(tiny, tmp_path):
    dpt.save_model(tiny, tmp_path)
    for source in (tmp_path, tmp_path / "weights.safetensors", str(tmp_path)):
        assert dpt.load_weights(source).config == tiny.config
    (tmp_path / "weights.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(ValueError, match=r"config\.json.*name the model"):
        dpt.load_weights(tmp_path / "alone.safetensors")


class Bomb:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_pickled_code_never_runs(tmp_path, capsys):
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(ValueError, match="holds more than tensors"):
        read_tensors(tmp_path / "bomb.pt")
    assert "never" not in capsys.readouterr().out


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        dpt.load_weights(tmp_path / "nothing.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a known checkpoint.*weight"):
        dpt.load_weights(tmp_path / "other.pt")
    torch.save({"weight": 3, "text": "x"}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match="not a mapping"):
        dpt.load_weights(tmp_path / "numbers.pt")


_ZOE_ON_DEPTH_ANYTHING = [
    "core.core.depth_head.scratch.output_conv1.weight",
    "core.core.pretrained.cls_token",
]


@pytest.mark.parametrize(("family", "keys"), [
    ("MiDaS 3.1 with Swin,", ["pretrained.model.layers.0.blocks.0.attn.relative_position_bias_table"]),
    ("MiDaS 3.1 with Swin V2,", ["pretrained.model.layers.3.blocks.1.attn.cpb_mlp.0.weight"]),
    ("MiDaS 3.1 with LeViT,", ["pretrained.model.blocks.0.m.attention_biases"]),
    ("MiDaS 3.1 with Next-ViT,", ["pretrained.model.features.0.norm1.weight"]),
    ("MiDaS v2.1 small,", ["pretrained.layer1.0.weight", "pretrained.layer1.3.0.0.conv_dw.weight"]),
    ("ZoeDepth,", ["core.core.pretrained.model.cls_token", "seed_bin_regressor._net.0.weight"]),
    ("ZoeDepth on Depth Anything ", _ZOE_ON_DEPTH_ANYTHING),
    ("Depth Anything V2 giant,", ["pretrained.cls_token", "pretrained.blocks.0.mlp.w12.weight"]),
])  # fmt: skip
def test_published_families_that_are_not_read_are_named(family, keys):
    decoder = ["pretrained.act_postprocess4.3.weight", "scratch.layer1_rn.weight"]
    decoder += ["depth_head.scratch.output_conv1.weight"] if "giant" in family else []
    with pytest.raises(ValueError, match=rf"^x\.pt is of {family}.*not read") as error:
        from_tensors({key: torch.zeros(3) for key in decoder + keys}, "x.pt")
    assert "\n" not in str(error.value)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "layers", "width", "rows"), [
    ("dpt_beit_base_384", 12, 768, 47 * 47 + 3), ("dpt_beit_large_512", 24, 1024, 63 * 63 + 3),
])  # fmt: skip
def test_the_authors_beits_are_recognised_and_fit(name, layers, width, rows):
    """MiDaS 3.1; names and shapes are those that timm 0.6 creates."""
    vit = "pretrained.model."
    shapes = {key: shape for key, shape in authors_keys(0).items() if not key.startswith(vit)}
    for k, c in enumerate((256, 512, 1024, 1024) if width == 1024 else (96, 192, 384, 768), start=1):
        post, kernel = f"pretrained.act_postprocess{k}.", {1: 4, 2: 2, 4: 3}.get(k)
        shapes |= {f"scratch.layer{k}_rn.weight": (256, c, 3, 3)}
        shapes |= {f"{post}0.project.0.weight": (width, 2 * width), f"{post}0.project.0.bias": (width,)}
        shapes |= {f"{post}3.weight": (c, width, 1, 1), f"{post}3.bias": (c,)}
        if kernel:
            shapes |= {f"{post}4.weight": (c, c, kernel, kernel), f"{post}4.bias": (c,)}
    shapes |= {
        f"{vit}cls_token": (1, 1, width),
        f"{vit}head.weight": (1000, width),
        f"{vit}head.bias": (1000,),
    }
    shapes |= {f"{vit}patch_embed.proj.weight": (width, 3, 16, 16), f"{vit}patch_embed.proj.bias": (width,)}
    shapes |= {f"{vit}fc_norm.{kind}": (width,) for kind in ("weight", "bias")}
    for i in range(layers):
        block = f"{vit}blocks.{i}."
        shapes |= {f"{block}gamma_{n}": (width,) for n in (1, 2)}
        shapes |= {f"{block}attn.{part}_bias": (width,) for part in "qv"}
        shapes |= {f"{block}attn.qkv.weight": (3 * width, width)}
        shapes |= {f"{block}attn.relative_position_bias_table": (rows, width // 64)}
        shapes |= {f"{block}attn.relative_position_index": (577, 577)}
        sizes = {"attn.proj": (width, width), "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for part, (out, into) in sizes.items():
            shapes |= {f"{block}{part}.weight": (out, into), f"{block}{part}.bias": (out,)}
        shapes |= {f"{block}norm{n}.{kind}": (width,) for n in (1, 2) for kind in ("weight", "bias")}
    checkpoint = filled(shapes)
    model = from_tensors(checkpoint, f"{name}.pt")
    assert model.config == MODELS[name].config
    table = checkpoint[f"{vit}blocks.{layers - 1}.attn.relative_position_bias_table"]
    assert torch.equal(model.backbone.beit.tables[layers - 1], table)


def test_partly_matching_checkpoints_are_refused_key_by_key():
    checkpoint = filled(authors_keys(12))
    del checkpoint["pretrained.model.blocks.7.attn.qkv.bias"]
    checkpoint["pretrained.model.blocks.12.attn.qkv.bias"] = torch.zeros(3)
    checkpoint["scratch.output_conv.0.bias"] = torch.zeros(5)
    with pytest.raises(ValueError, match="does not fit") as error:
        from_tensors(checkpoint, "dpt_base.pt")
    message = str(error.value)
    assert "missing: backbone.vit.blocks.7.attn.qkv.bias" in message
    assert "unexpected: pretrained.model.blocks.12.attn.qkv.bias" in message
    assert "misshapen: head.conv1.bias is [5], should be [128]" in message
    assert len(message.splitlines()) == 1
