"""Proof that our models are the published ones: the same weights give the same numbers as `transformers`."""

import dataclasses
import gc
import json
import re
from functools import partial

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from torch import nn

import dpt
import dpt.predict.depth
from dpt.weights.files import from_tensors
from dpt.weights.hugging_face import BEIT, _hugging_face_config, hugging_face_settings
from tests.support.models import SHALLOW_HYBRID

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
LARGE |= {"backbone_out_indices": [5, 11, 17, 23], "neck_hidden_sizes": [256, 512, 1024, 1024]}
HYBRID = {"is_hybrid": True, "neck_hidden_sizes": [256, 512, 768, 768], "readout_type": "project"}
SHALLOW = {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
SIZES = [(SHALLOW, 64), pytest.param({}, 384, marks=pytest.mark.slow)]
"""Layers and sides in pixels: shallow and small, and as published."""
ADE20K = {"use_batch_norm_in_fusion_residual": True, "use_bias_in_fusion_residual": False, "num_labels": 150}


@pytest.fixture(autouse=True)
def _free_memory(request):
    """Models of published sizes are gone before the next; a collection takes a second."""
    yield
    if request.node.get_closest_marker("slow"):
        gc.collect()


@torch.no_grad()
def randomised(model):
    """Weights that make every part matter, from a model on the meta device.

    The default initialisation makes nearly constant maps, and takes a minute for the large model.
    """
    torch.manual_seed(0)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, a=1.5)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.1, 0.3)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
                module.num_batches_tracked.zero_()
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "position_embeddings", "mask_token", "lambda1")):
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


def theirs(task="DepthEstimation", side=384, **settings):
    model = randomised(on_meta(task, **settings))
    if model.config.is_hybrid:  # it could resample its positions, and refuses other images all the same
        model.dpt.embeddings.image_size = (side, side)
    return model


def on_meta(task, **settings):
    with torch.device("meta"):
        return getattr(transformers, f"DPTFor{task}")(transformers.DPTConfig(**settings))


def assert_same(ours, expected, tolerance=1e-5):
    assert ours.shape == expected.shape
    assert expected.std() > 1e-2 * expected.abs().max(), "the comparison would prove nothing"
    assert (ours - expected).abs().max() <= tolerance * expected.abs().max()


def taps_of(model):
    """Our setting for the layers that theirs taps; tensors alone do not tell."""
    layers = [index + 1 for index in model.config.backbone_out_indices]
    return {"taps": ("R0", "R1", *layers[2:]) if model.config.is_hybrid else tuple(layers)}


@torch.no_grad()
def non_square(model, images):
    """Their parts put together by hand, since their own forward pass only knows square images."""
    if model.config.is_hybrid:
        embedded = model.dpt.embeddings(images, interpolate_pos_encoding=True)
        maps, tokens = list(embedded.intermediate_activations), embedded.last_hidden_states
        wanted = model.config.backbone_out_indices[2:]
    else:
        maps, tokens = [], model.dpt.embeddings(images).last_hidden_states
        wanted = model.config.backbone_out_indices
    for index, layer in enumerate(model.dpt.encoder.layer):
        tokens = layer(tokens)
        if index in wanted:
            maps.append(tokens)
    return model.head(model.neck(maps, images.shape[2] // 16, images.shape[3] // 16))


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "task", "settings"),
    [
        ("dpt_base", "DepthEstimation", {}),
        ("dpt_hybrid", "DepthEstimation", HYBRID),
        ("dpt_hybrid_ade20k", "SemanticSegmentation", HYBRID | ADE20K),
    ],
)
def test_published_sizes_are_recognised(name, task, settings):
    tensors = on_meta(task, **settings).state_dict()
    tensors = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in tensors.items()}
    released = {"weight_standardisation": "released"} if "hybrid" in name else {}
    expected = dataclasses.replace(dpt.zoo.MODELS[name].config, **released)
    assert from_tensors(tensors, "model.safetensors").config == expected


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(("layers", "side"), SIZES)
def test_base_reads_their_folder_and_agrees(layers, side, tmp_path):
    model = theirs(**layers)
    model.save_pretrained(tmp_path / "theirs")
    ours = dpt.load_weights(tmp_path / "theirs")
    images = torch.randn(1, 3, side, side)
    assert_same(ours(images), model(images).predicted_depth)
    wide = torch.randn(1, 3, side // 2, side)
    assert_same(ours(wide), non_square(model, wide))

    dpt.save_hugging_face(ours, tmp_path / "back")
    load = transformers.DPTForDepthEstimation.from_pretrained
    again, report = load(tmp_path / "back", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(again.eval()(images).predicted_depth, model(images).predicted_depth)
    for key, tensor in again.state_dict().items():
        if "residual_layer1" not in key or "layers.0" not in key:
            assert key.startswith("dpt.layernorm") or torch.equal(tensor, model.state_dict()[key]), key


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize("readout", ["ignore", "add"])
def test_other_readouts_and_taps_agree(readout):
    settings = {"readout_type": readout, "backbone_out_indices": [1, 2, 3, 4], "num_hidden_layers": 5}
    model = theirs(**settings)
    ours = from_tensors(model.state_dict(), "model.safetensors", readout=readout, taps=(2, 3, 4, 5))
    images = torch.randn(1, 3, 128, 128)
    assert_same(ours(images), model(images).predicted_depth)


@pytest.mark.slow
@torch.no_grad()
def test_large_agrees():
    model = theirs(**LARGE)
    ours = from_tensors(model.state_dict(), "model.safetensors")
    assert ours.config == dpt.zoo.MODELS["dpt_large"].config
    images = torch.randn(1, 3, 384, 384)
    assert_same(ours(images), model(images).predicted_depth)
    tall = torch.randn(1, 3, 128, 64)
    assert_same(ours(tall), non_square(model, tall))


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(("layers", "side"), SIZES)
def test_hybrid_agrees_and_round_trips(layers, side, tmp_path):
    model = theirs(side=side, **HYBRID, **layers)
    # transformers standardises weights as timm does today, not as the published ones need it
    settings = taps_of(model) | {"weight_standardisation": "timm"}
    ours = from_tensors(model.state_dict(), "model.safetensors", **settings)
    images = torch.randn(1, 3, side, side)
    assert_same(ours(images), model(images).predicted_depth)
    wide = torch.randn(1, 3, side // 2, side)
    assert_same(ours(wide), non_square(model, wide))

    dpt.save_hugging_face(ours, tmp_path / "back")
    again = transformers.DPTForDepthEstimation.from_pretrained(tmp_path / "back").eval()
    again.dpt.embeddings.image_size = (side, side)
    assert_same(again(images).predicted_depth, model(images).predicted_depth)
    assert dpt.load_weights(tmp_path / "back").config == ours.config


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(
    ("settings", "side"),
    [
        (HYBRID | SHALLOW, 64),
        *(pytest.param(model, 384, marks=pytest.mark.slow) for model in (HYBRID, LARGE)),
    ],
)
def test_segmentation_agrees(settings, side):
    model = theirs("SemanticSegmentation", side, **settings, **ADE20K)
    overrides = taps_of(model)
    if model.config.is_hybrid:
        overrides["weight_standardisation"] = "timm"
    ours = from_tensors(model.state_dict(), "model.safetensors", **overrides)
    images = torch.randn(1, 3, side, side)
    penultimate = []
    block = model.neck.fusion_stage.layers[2]
    block.register_forward_hook(lambda module, inputs, output: penultimate.append(output))
    logits = model(images).logits
    # their auxiliary head reads the last fusion block and is not upsampled; the paper's reads the one before
    auxiliary = nn.functional.interpolate(
        model.auxiliary_head(penultimate[0]), size=(side, side), mode="bilinear", align_corners=True
    )
    ours.training = True  # returns the auxiliary logits; its parts stay in evaluation mode
    for output, expected in zip(ours(images), (logits, auxiliary), strict=True):
        assert_same(output, expected)


@torch.no_grad()
@pytest.mark.parametrize("settings", [
    {"scale": 0.000305, "shift": 0.1378, "invert": True, "image_size": (640, 480)},
    {"scale": 0.5, "shift": 0.01, "mean": (0.1, 0.2, 0.3), "resize_rule": "upper_bound"},
    {},
])  # fmt: skip
def test_what_transformers_has_no_key_for_is_kept_and_read_back(settings, tmp_path):
    torch.manual_seed(0)
    ours = dpt.create_model("dpt_tiny", **settings).eval()
    dpt.save_hugging_face(ours, tmp_path / "there")
    again = dpt.load_weights(tmp_path / "there")
    assert again.config == ours.config
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(images), ours(images))
    plain = json.loads((tmp_path / "there" / "config.json").read_text())
    assert plain["dpt_on_ray"]["predicts"] == ours.config.meaning

    # transformers' own copy keeps them, and its numbers are ours before scale and shift
    model = transformers.DPTForDepthEstimation.from_pretrained(tmp_path / "there").eval()
    inverse = settings.get("scale", 1.0) * model(images).predicted_depth + settings.get("shift", 0.0)
    assert_close = torch.testing.assert_close
    assert_close(1 / inverse if settings.get("invert") else inverse, ours(images), rtol=1e-5, atol=1e-6)
    model.save_pretrained(tmp_path / "theirs")
    assert dpt.load_weights(tmp_path / "theirs").config == ours.config


@pytest.mark.parametrize("batch_norm", [False, True])
def test_segmentation_goes_there_and_back(batch_norm, tmp_path):
    ours = dpt.create_model("dpt_tiny", task="segmentation", classes=5, batch_norm=batch_norm, image_size=480)
    dpt.save_hugging_face(ours, tmp_path / "there")
    assert dpt.load_weights(tmp_path / "there").config == ours.config


@pytest.mark.parametrize("settings", [{"max_depth": 20.0}, {"head_align_corners": False}])
def test_what_transformers_cannot_compute_is_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="transformers has no DPT"):
        dpt.save_hugging_face(dpt.create_model("dpt_tiny", **settings), tmp_path / "there")


@pytest.mark.parametrize("names", [("wall", "sky", "tree"), ()])
def test_names_of_classes_go_there_and_back(names):
    settings = {"task": "segmentation", "classes": 3, "batch_norm": True, "class_names": names}
    with torch.device("meta"):
        model = dpt.create_model("dpt_base", **settings)
    config = json.loads(json.dumps(_hugging_face_config(model)))
    assert transformers.DPTConfig(**config).num_labels == 3
    assert hugging_face_settings(config).get("class_names", ()) == names


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(
    "sizes",
    [((70, 126), (70, 686)), pytest.param(((518, 518), (518, 686)), marks=pytest.mark.slow)],
    ids=["small", "published"],
)
def test_depth_anything_agrees(sizes):
    settings = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    settings |= {
        "image_size": 518,
        "patch_size": 14,
        "out_features": ["stage3", "stage6", "stage9", "stage12"],
    }
    backbone = transformers.Dinov2Config(**settings, reshape_hidden_states=False, layer_norm_eps=1e-6)
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=384, neck_hidden_sizes=[48, 96, 192, 384]
    )
    with torch.device("meta"):
        model = transformers.DepthAnythingForDepthEstimation(config)
    model = randomised(model)
    tensors = dict(model.state_dict())
    for layer in range(12):
        attention = f"backbone.encoder.layer.{layer}.attention."
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"{attention}{part}_proj.{kind}") for part in "qkv"]
            tensors[f"{attention}qkv.{kind}"] = torch.cat(parts)
    authors = {depth_anything_name(key): tensor for key, tensor in tensors.items()}
    ours = from_tensors(authors, "depth_anything_v2_vits.pth")
    assert ours.config == dpt.zoo.MODELS["depth_anything_v2_small"].config
    # transformers resamples positions by size; the authors by these factors
    model.backbone.embeddings.interpolate_pos_encoding = partial(authors_positions, model.backbone.embeddings)
    for size in sizes:
        images = torch.randn(1, 3, *size)
        assert_same(ours(images), model(images).predicted_depth)


def authors_positions(embeddings, tokens, height, width):
    """As DINOv2's `interpolate_pos_encoding`: factors ((h + 0.1) / 37, (w + 0.1) / 37), bicubic."""
    h, w, table = height // 14, width // 14, embeddings.position_embeddings
    if (h, w) == (37, 37):
        return table
    grid = table[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, scale_factor=((h + 0.1) / 37, (w + 0.1) / 37), mode="bicubic")
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def depth_anything_name(key):
    """The authors' name of a tensor of their port in `transformers`, independently of our tables."""
    exact = {
        "backbone.embeddings.cls_token": "pretrained.cls_token",
        "backbone.embeddings.mask_token": "pretrained.mask_token",
        "backbone.embeddings.position_embeddings": "pretrained.pos_embed",
    }
    patterns = {
        r"backbone\.embeddings\.patch_embeddings\.projection": "pretrained.patch_embed.proj",
        r"backbone\.layernorm": "pretrained.norm",
        r"backbone\.encoder\.layer\.(\d+)\.attention\.qkv": r"pretrained.blocks.\1.attn.qkv",
        r"backbone\.encoder\.layer\.(\d+)\.attention\.o_proj": r"pretrained.blocks.\1.attn.proj",
        r"backbone\.encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1": r"pretrained.blocks.\1.ls\2.gamma",
        r"backbone\.encoder\.layer\.(\d+)\.(norm\d|mlp\.fc\d)": r"pretrained.blocks.\1.\2",
        r"neck\.reassemble_stage\.layers\.(\d)\.projection": r"depth_head.projects.\1",
        r"neck\.reassemble_stage\.layers\.(\d)\.resize": r"depth_head.resize_layers.\1",
        r"head\.conv1": "depth_head.scratch.output_conv1",
        r"head\.conv2": "depth_head.scratch.output_conv2.0",
        r"head\.conv3": "depth_head.scratch.output_conv2.2",
    }
    for k in range(4):
        scratch, block = "depth_head.scratch.", rf"neck\.fusion_stage\.layers\.{k}\."
        patterns[rf"neck\.convs\.{k}"] = f"{scratch}layer{k + 1}_rn"
        patterns[f"{block}projection"] = f"{scratch}refinenet{4 - k}.out_conv"
        patterns[rf"{block}residual_layer(\d)\.convolution(\d)"] = (
            rf"{scratch}refinenet{4 - k}.resConfUnit\1.conv\2"
        )
    if key in exact:
        return exact[key]
    (pattern,) = (pattern for pattern in patterns if re.match(rf"{pattern}(\.|$)", key))
    return re.sub(f"^{pattern}", patterns[pattern], key)


# ---- backbones that transformers has as models of their own


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(("taps", "settings", "name"), [
    ((9, 10, 11, 12), {}, "depth_anything_small"),
    ((3, 6, 9, 12), {}, "depth_anything_v2_small"),
    ((3, 6, 9, 12), {"depth_estimation_type": "metric", "max_depth": 20}, "depth_anything_v2_small"),
])  # fmt: skip
def test_their_folder_of_depth_anything_is_read(taps, settings, name, tmp_path):
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518}
    backbone = transformers.Dinov2Config(
        **sizes, patch_size=14, out_features=[f"stage{tap}" for tap in taps], reshape_hidden_states=False
    )
    with torch.device("meta"):
        model = transformers.DepthAnythingForDepthEstimation(
            transformers.DepthAnythingConfig(backbone_config=backbone, **settings)
        )
    model = randomised(model)
    model.save_pretrained(tmp_path)
    ours = dpt.load_weights(tmp_path)
    expected = dataclasses.replace(dpt.zoo.MODELS[name].config, max_depth=settings.get("max_depth"))
    assert ours.config == expected
    model.backbone.embeddings.interpolate_pos_encoding = partial(authors_positions, model.backbone.embeddings)
    for size in ((70, 126), (98, 56)):
        images = torch.randn(1, 3, *size)
        assert_same(ours(images), model(images).predicted_depth)


def beit(**settings):
    """A DPT of theirs with a small BEiT."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 256}
    sizes |= {"image_size": 64, "out_features": ["stage1", "stage3", "stage4", "stage6"]}
    backbone = transformers.BeitConfig(
        **sizes, use_relative_position_bias=True, reshape_hidden_states=False, layer_norm_eps=1e-6
    )
    config = transformers.DPTConfig(
        backbone_config=backbone, backbone_out_indices=None, neck_hidden_sizes=[32, 48, 64, 96], **settings
    )
    with torch.device("meta"):
        model = transformers.DPTForDepthEstimation(config)
    model = randomised(model)
    for key, parameter in model.named_parameters():
        if key.endswith(("relative_position_bias_table", "lambda_1", "lambda_2")):
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"readout_type": "ignore", "fusion_hidden_size": 64}])
def test_their_folder_of_a_beit_is_read(settings, tmp_path):
    model = beit(**settings)
    model.save_pretrained(tmp_path)
    ours = dpt.load_weights(tmp_path)
    assert ours.config.taps == (1, 3, 4, 6)
    for size in ((64, 64), (96, 160), (128, 32)):
        images = torch.randn(2, 3, *size)
        assert_same(ours(images), model(images).predicted_depth)


def test_published_beits_are_those_of_the_table():
    for (width, side), name in BEIT.items():
        deep = width == 1024
        taps = (6, 12, 18, 24) if deep else (3, 6, 9, 12)
        backbone = {"model_type": "beit", "hidden_size": width, "image_size": side}
        backbone |= {"num_hidden_layers": taps[-1], "num_attention_heads": width // 64}
        backbone |= {"out_features": [f"stage{tap}" for tap in taps]}
        channels = [256, 512, 1024, 1024] if deep else [96, 192, 384, 768]
        config = {"model_type": "dpt", "backbone_config": backbone, "fusion_hidden_size": 256}
        settings = hugging_face_settings(config | {"neck_hidden_sizes": channels})
        assert dpt.zoo.resolve_config(settings.pop("model"), **settings) == dpt.zoo.MODELS[name].config


def test_configs_of_other_models_are_refused():
    for config, message in (
        ({"model_type": "zoedepth"}, "a model of type 'zoedepth', not of type 'dpt' or 'depth_anything'"),
        ({"model_type": "depth_anything", "backbone_config": {"model_type": "dinov2", "hidden_size": 1536,
          "out_indices": [1, 2, 3, 4]}}, "Depth Anything with 1536 channels is not known"),
        ({"model_type": "dpt", "backbone_config": {"model_type": "beit", "out_features": ["stem"] * 4}},
         "out_features are .*expected four such as 'stage3'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            hugging_face_settings(config)


# ---- their pipelines


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize("settings", [{"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}, SHALLOW_HYBRID])
def test_their_pipeline_takes_our_folder(settings, tmp_path):
    torch.manual_seed(0)
    ours = dpt.create_model("dpt_tiny", **settings).eval()
    dpt.save_hugging_face(ours, tmp_path)
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    estimate = transformers.pipeline("depth-estimation", model=str(tmp_path), device="cpu")
    found = estimate(PIL.Image.fromarray(photo))["predicted_depth"]
    # of the network's own size, so that no resampling differs
    expected = ours(dpt.predict.depth.network_input(ours, [photo]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert estimate(PIL.Image.fromarray(photo[:40]))["predicted_depth"].shape == (40, 64)
    loaded = transformers.AutoModelForDepthEstimation.from_pretrained(tmp_path)
    assert isinstance(loaded, transformers.DPTForDepthEstimation)


@torch.no_grad()
def test_their_segmentation_pipeline_takes_our_folder(tmp_path):
    torch.manual_seed(0)
    settings = {"task": "segmentation", "classes": 3, "class_names": ("sky", "road", "tree")}
    ours = dpt.create_model("dpt_tiny", batch_norm=True, auxiliary=True, **settings).eval()
    dpt.save_hugging_face(ours, tmp_path)
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    segment = transformers.pipeline("image-segmentation", model=str(tmp_path), device="cpu")
    classes = ours(dpt.predict.depth.network_input(ours, [photo]))[0].argmax(dim=0).numpy()
    for found in segment(PIL.Image.fromarray(photo)):
        mask = np.asarray(found["mask"]) > 0
        assert (mask == (classes == settings["class_names"].index(found["label"]))).mean() > 0.999
