"""The table of models by name."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from dpt.class_names import class_names
from dpt.config import ModelConfig, check_choice, check_overrides
from dpt.layers.backbones import natural_choices
from dpt.model import DPT


@dataclass(frozen=True)
class ModelCard:
    """An entry of the table of models.

    Attributes:
        config: what the model is built from.
        licence: of the published weights, or else of the backbone's; empty without published weights.
        about: one line for a list of models.
    """

    config: ModelConfig
    licence: str
    about: str


_STAGES = ("R0", "R1", "R2", "R3")
_QUARTERS, _LAST = (3, 6, 9, 12), (9, 10, 11, 12)
_SMALL_CHANNELS, _BASE_CHANNELS = (48, 96, 192, 384), (96, 192, 384, 768)
_LARGE_CHANNELS = (256, 512, 1024, 1024)
_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_SEGMENTATION: dict[str, Any] = {"task": "segmentation", "auxiliary": True, "batch_norm": True}
_ADE20K = {**_SEGMENTATION, "classes": 150, "class_names": class_names("ade20k"), "image_size": 480}

_BASE = ModelConfig("vit_base_patch16_384.orig_in21k_ft_in1k", _QUARTERS, _BASE_CHANNELS)
_LARGE = ModelConfig("vit_large_patch16_384.augreg_in21k_ft_in1k", (6, 12, 18, 24), _LARGE_CHANNELS)
_HYBRID = ModelConfig("vit_base_r50_s16_384.orig_in21k_ft_in1k", ("R0", "R1", 9, 12), (256, 512, 768, 768))
_DEIT = ModelConfig("deit_base_patch16_384.fb_in1k", _QUARTERS, _BASE_CHANNELS, **_IMAGENET)
_DEIT_DISTILLED = dataclasses.replace(_DEIT, backbone="deit_base_distilled_patch16_384.fb_in1k")
_RESNET50 = ModelConfig("resnet50.tv_in1k", _STAGES, (256, 512, 1024, 2048), **_IMAGENET)
_RESNEXT101 = dataclasses.replace(_RESNET50, backbone="resnext101_32x8d.fb_wsl_ig1b_ft_in1k")
_MIDAS_V21 = dataclasses.replace(
    _RESNEXT101, fusion="midas", head_align_corners=False, resize_rule="upper_bound"
)

_BEIT_LARGE = ModelConfig(
    "beit_large_patch16_512.in22k_ft_in22k_in1k", (6, 12, 18, 24), _LARGE_CHANNELS, image_size=512
)
_BEIT_LARGE_384 = dataclasses.replace(
    _BEIT_LARGE, backbone="beit_large_patch16_384.in22k_ft_in22k_in1k", image_size=384
)
_BEIT_BASE = ModelConfig("beit_base_patch16_384.in22k_ft_in22k_in1k", _QUARTERS, _BASE_CHANNELS)

_LARGE_ADE20K, _HYBRID_ADE20K = (dataclasses.replace(config, **_ADE20K) for config in (_LARGE, _HYBRID))

# Scale and shift are those of the released fine-tuned models: metric inverse depth in 1/m.
_METRIC = dataclasses.replace(_HYBRID, invert=True)
_KITTI = dataclasses.replace(_METRIC, scale=0.00006016, shift=0.00579, image_size=(1216, 352))
_NYU = dataclasses.replace(_METRIC, scale=0.000305, shift=0.1378, image_size=(640, 480))

_TINY = ModelConfig(
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    (1, 2, 3, 4),
    (16, 32, 64, 64),
    features=32,
    backbone_arguments={"img_size": 64, "embed_dim": 64, "depth": 4, "num_heads": 2},
    image_size=64,
)

# Trained from scratch for minutes, convolutions and normalisation learn what a transformer needs hours for.
# In small images most of the time goes to the finest maps: their few channels make steps twice as fast.
_HYBRID_SMALL = ModelConfig(
    "vit_hybrid_small",
    ("R0", "R1", 2, 4),
    (32, 48, 96, 128),
    features=16,
    head_channels=8,
    batch_norm=True,
    image_size=64,
    **_IMAGENET,
)
_SMALL = ModelConfig(
    "resnet18.a1_in1k",
    _STAGES,
    (32, 64, 128, 256),
    features=32,
    batch_norm=True,
    backbone_arguments={"channels": [32, 64, 128, 256]},
    image_size=128,
    **_IMAGENET,
)


def _dinov2(
    size: str, taps: tuple[int, ...], channels: tuple[int, ...], features: int, output_resize: str
) -> ModelConfig:
    return ModelConfig(
        f"vit_{size}_patch14_dinov2.lvd142m",
        taps,
        channels,
        features=features,
        readout="ignore",
        final_norm=True,
        position_interpolation="bicubic",
        image_size=518,
        resize_rule="lower_bound",
        output_resize=output_resize,
        **_IMAGENET,
    )


_V1_SMALL = _dinov2("small", _LAST, _SMALL_CHANNELS, 64, "bilinear")
_V1_BASE = _dinov2("base", _LAST, _BASE_CHANNELS, 128, "bilinear")
_V1_LARGE = _dinov2("large", (21, 22, 23, 24), _LARGE_CHANNELS, 256, "bilinear")
_V2_SMALL = _dinov2("small", _QUARTERS, _SMALL_CHANNELS, 64, "bilinear_aligned")
_V2_BASE = _dinov2("base", _QUARTERS, _BASE_CHANNELS, 128, "bilinear_aligned")
_V2_LARGE = _dinov2("large", (5, 12, 18, 24), _LARGE_CHANNELS, 256, "bilinear_aligned")

APACHE, MIT, BSD, NON_COMMERCIAL = "Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-NC-4.0"
MODELS: dict[str, ModelCard] = {
    "dpt_base": ModelCard(_BASE, APACHE, "DPT-Base"),
    "dpt_large": ModelCard(_LARGE, MIT, "DPT-Large"),
    "dpt_hybrid": ModelCard(_HYBRID, MIT, "DPT-Hybrid"),
    "dpt_hybrid_kitti": ModelCard(_KITTI, MIT, "DPT-Hybrid fine-tuned on KITTI: depth in metres"),
    "dpt_hybrid_nyu": ModelCard(_NYU, MIT, "DPT-Hybrid fine-tuned on NYUv2: depth in metres"),
    "dpt_large_ade20k": ModelCard(_LARGE_ADE20K, MIT, "segmentation, DPT-Large (Table 4)"),
    "dpt_hybrid_ade20k": ModelCard(_HYBRID_ADE20K, MIT, "segmentation, DPT-Hybrid (Table 4)"),
    "dpt_deit_base": ModelCard(_DEIT, APACHE, "DeiT-Base backbone (Table 8)"),
    "dpt_deit_base_distilled": ModelCard(_DEIT_DISTILLED, APACHE, "distilled DeiT-Base backbone (Table 8)"),
    "dpt_resnet50": ModelCard(_RESNET50, BSD, "ResNet-50 backbone (Table 8)"),
    "dpt_resnext101_wsl": ModelCard(_RESNEXT101, NON_COMMERCIAL, "ResNeXt-101-WSL backbone (Table 8)"),
    "midas_v21": ModelCard(_MIDAS_V21, MIT, "the fully convolutional MiDaS v2.1 (Table 9)"),
    "dpt_beit_large_512": ModelCard(_BEIT_LARGE, MIT, "MiDaS 3.1, BEiT-Large at 512 pixels"),
    "dpt_beit_large_384": ModelCard(_BEIT_LARGE_384, MIT, "MiDaS 3.1, BEiT-Large at 384 pixels"),
    "dpt_beit_base_384": ModelCard(_BEIT_BASE, MIT, "MiDaS 3.1, BEiT-Base at 384 pixels"),
    "depth_anything_small": ModelCard(_V1_SMALL, APACHE, "Depth Anything V1, ViT-S"),
    "depth_anything_base": ModelCard(_V1_BASE, APACHE, "Depth Anything V1, ViT-B"),
    "depth_anything_large": ModelCard(_V1_LARGE, APACHE, "Depth Anything V1, ViT-L"),
    "depth_anything_v2_small": ModelCard(_V2_SMALL, APACHE, "Depth Anything V2, ViT-S"),
    "depth_anything_v2_base": ModelCard(_V2_BASE, NON_COMMERCIAL, "Depth Anything V2, ViT-B"),
    "depth_anything_v2_large": ModelCard(_V2_LARGE, NON_COMMERCIAL, "Depth Anything V2, ViT-L"),
    "dpt_tiny": ModelCard(_TINY, "", "for tests: a 4-layer transformer of 64 channels"),
    "dpt_hybrid_small": ModelCard(_HYBRID_SMALL, "", "for demonstrations: learns from scratch on a CPU"),
    "dpt_small": ModelCard(_SMALL, "", "the same decoder on a ResNet-18 of half the width"),
}


def list_models() -> list[str]:
    """Names that `create_model` accepts."""
    return sorted(MODELS)


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> DPT:
    """Build a model of the table `MODELS`.

    Args:
        name: one of `list_models()`.
        pretrained: fetch the backbone's ImageNet weights through timm; the decoder is random either way.
        **overrides: fields of `ModelConfig`. Another `backbone` brings its own mean and std, taps at every
            quarter of its depth, and readout ``"ignore"`` if it has no class token, unless given.

    Raises:
        ValueError: for an unknown name or override, naming it and listing the known ones.
    """
    return DPT(resolve_config(name, **overrides), pretrained)


def resolve_config(name: str, **overrides: Any) -> ModelConfig:
    """The config that `create_model` builds for `name` and `overrides`, with the same errors."""
    check_choice("model", name, list_models())
    check_overrides(overrides)
    if "backbone" in overrides:
        chosen = natural_choices(overrides["backbone"], overrides.get("backbone_arguments", {}))
        overrides = {"backbone_arguments": {}} | chosen | overrides
    return dataclasses.replace(MODELS[name].config, **overrides)
