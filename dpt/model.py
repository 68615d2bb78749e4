"""DPT: backbone → Reassemble → Fusion → head, and the table of models by name.

Ranftl, Bochkovskiy, Koltun: Vision Transformers for Dense Prediction, ICCV 2021.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dpt.class_names import class_names
from dpt.layers.backbones import Backbone, TapName, create_backbone, natural_choices
from dpt.layers.fusion import FusionDecoder
from dpt.layers.heads import DepthHead, SegmentationHead
from dpt.layers.reassemble import READOUTS, Reassemble

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _check_choice(what: str, choice: str, choices: Iterable[str]) -> None:
    if choice not in choices:
        raise ValueError(f"{what}: there is no {choice!r}; choose from {', '.join(choices)}")


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a model without its weights; survives a round trip through JSON.

    Attributes:
        backbone: timm name with weight tag.
        backbone_arguments: further arguments of the timm model, e.g. its depth.
        taps: four tapped layers in network order: layer numbers counted from 1, or stages ``"R0"``, ``"R1"``.
        readout: ``"project"``, ``"add"`` or ``"ignore"`` (Table 7).
        channels: channels of the four reassembled maps before the decoder; of a convolutional tap, its own.
        features: channels of the decoder, D̂ in the paper.
        fusion: ``"dpt"``, or ``"midas"`` for the decoder of MiDaS v2.1.
        task: ``"depth"`` or ``"segmentation"``.
        classes: number of classes for segmentation.
        class_names: what they are called, in order; empty if that is not known.
        auxiliary: add the auxiliary segmentation head (section 4.2).
        batch_norm: normalise in the fusion blocks; the paper does for segmentation only.
        scale, shift: applied to the network's inverse depth d as ``scale · d + shift``, which makes it
            metric (1/m) for the models that were fine-tuned on KITTI and NYUv2.
        invert: return depth (m) instead of inverse depth.
        max_depth: end in a sigmoid times this depth (m) instead of a ReLU: Depth Anything's metric models.
        head_align_corners: upsampling in the depth head; off in MiDaS v2.1.
        position_interpolation: ``"bilinear"`` (paper) or ``"bicubic"`` (DINOv2).
        final_norm: taps pass through the backbone's final norm; DPT takes them before it.
        mean, std: normalisation of RGB in [0, 1].
        image_size, resize_rule: how images are resized for this model, see `transforms.network_size`.
    """

    backbone: str
    taps: tuple[TapName, ...]
    channels: tuple[int, ...]
    readout: str = "project"
    features: int = 256
    fusion: str = "dpt"
    task: str = "depth"
    classes: int = 150
    class_names: tuple[str, ...] = ()
    auxiliary: bool = False
    batch_norm: bool = False
    scale: float = 1.0
    shift: float = 0.0
    invert: bool = False
    max_depth: float | None = None
    head_align_corners: bool = True
    position_interpolation: str = "bilinear"
    final_norm: bool = False
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    image_size: int = 384
    resize_rule: str = "minimal"
    backbone_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("taps", "channels", "class_names", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_choice("readout", self.readout, READOUTS)
        _check_choice("fusion", self.fusion, ("dpt", "midas"))
        _check_choice("task", self.task, ("depth", "segmentation"))
        _check_choice("position_interpolation", self.position_interpolation, ("bilinear", "bicubic"))
        if len(self.channels) != 4:
            raise ValueError(f"channels: four numbers are needed, one a stage, not {self.channels}")
        if self.class_names and len(self.class_names) != self.classes:
            raise ValueError(f"class_names: {len(self.class_names)} names for {self.classes} classes")

    @property
    def metric(self) -> bool:
        """Whether predictions are in metres or 1/m, not up to an unknown scale and shift."""
        return self.predicts_depth or (self.scale, self.shift) != (1.0, 0.0)

    @property
    def predicts_depth(self) -> bool:
        """Whether predictions are depth in metres, not inverse depth."""
        return self.invert or self.max_depth is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "ModelConfig":
        """Inverse of `to_dict`. Raises ValueError for a key that does not exist."""
        _check_overrides(plain)
        return cls(**plain)


def _check_overrides(overrides: Mapping[str, Any]) -> None:
    known = [entry.name for entry in dataclasses.fields(ModelConfig)]
    for key in overrides:
        _check_choice("model setting", key, known)


@dataclass(frozen=True)
class ModelCard:
    """An entry of the table of models."""

    config: ModelConfig
    licence: str
    """Licence of the published weights, or else of the backbone's; empty where there are none."""
    about: str


_BASE = ModelConfig("vit_base_patch16_384.orig_in21k_ft_in1k", (3, 6, 9, 12), (96, 192, 384, 768))
_LARGE = ModelConfig("vit_large_patch16_384.augreg_in21k_ft_in1k", (6, 12, 18, 24), (256, 512, 1024, 1024))
_HYBRID = ModelConfig("vit_base_r50_s16_384.orig_in21k_ft_in1k", ("R0", "R1", 9, 12), (256, 512, 768, 768))
_DEIT = dataclasses.replace(
    _BASE, backbone="deit_base_patch16_384.fb_in1k", mean=IMAGENET_MEAN, std=IMAGENET_STD
)
_DEIT_DISTILLED = dataclasses.replace(_DEIT, backbone="deit_base_distilled_patch16_384.fb_in1k")
_RESNET50 = ModelConfig(
    "resnet50.tv_in1k",
    ("R0", "R1", "R2", "R3"),
    (256, 512, 1024, 2048),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
_RESNEXT101 = dataclasses.replace(_RESNET50, backbone="resnext101_32x8d.fb_wsl_ig1b_ft_in1k")
_MIDAS_V21 = dataclasses.replace(
    _RESNEXT101, fusion="midas", head_align_corners=False, resize_rule="upper_bound"
)
_KITTI = dataclasses.replace(_HYBRID, scale=0.00006016, shift=0.00579, invert=True, image_size=352)
_NYU = dataclasses.replace(_HYBRID, scale=0.000305, shift=0.1378, invert=True, image_size=480)


def _ade20k(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(
        config,
        task="segmentation",
        classes=150,
        class_names=class_names("ade20k"),
        auxiliary=True,
        batch_norm=True,
        image_size=480,
    )


def _depth_anything(
    size: str, taps: tuple[int, ...], channels: tuple[int, ...], features: int
) -> ModelConfig:
    return ModelConfig(
        f"vit_{size}_patch14_dinov2.lvd142m",
        taps,
        channels,
        features=features,
        readout="ignore",
        final_norm=True,
        position_interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        image_size=518,
        resize_rule="lower_bound",
    )


_QUARTERS, _LAST = (3, 6, 9, 12), (9, 10, 11, 12)
_SMALL_CHANNELS, _BASE_CHANNELS, _LARGE_CHANNELS = (48, 96, 192, 384), _BASE.channels, _LARGE.channels
_TINY = ModelConfig(
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    (1, 2, 3, 4),
    (16, 32, 64, 64),
    features=32,
    backbone_arguments={"img_size": 64, "embed_dim": 64, "depth": 4, "num_heads": 2},
    image_size=64,
)
# Trained from scratch for minutes, convolutions and normalisation learn what a transformer needs hours for.
_SMALL = ModelConfig(
    "resnet18.a1_in1k",
    ("R0", "R1", "R2", "R3"),
    (32, 64, 128, 256),
    features=32,
    batch_norm=True,
    backbone_arguments={"channels": [32, 64, 128, 256]},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    image_size=128,
)

APACHE, MIT, BSD, NON_COMMERCIAL = "Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-NC-4.0"
MODELS: dict[str, ModelCard] = {
    "dpt_base": ModelCard(_BASE, APACHE, "DPT-Base"),
    "dpt_large": ModelCard(_LARGE, MIT, "DPT-Large"),
    "dpt_hybrid": ModelCard(_HYBRID, MIT, "DPT-Hybrid"),
    "dpt_hybrid_kitti": ModelCard(_KITTI, MIT, "DPT-Hybrid fine-tuned on KITTI: depth in metres"),
    "dpt_hybrid_nyu": ModelCard(_NYU, MIT, "DPT-Hybrid fine-tuned on NYUv2: depth in metres"),
    "dpt_large_ade20k": ModelCard(_ade20k(_LARGE), MIT, "segmentation, DPT-Large (Table 4)"),
    "dpt_hybrid_ade20k": ModelCard(_ade20k(_HYBRID), MIT, "segmentation, DPT-Hybrid (Table 4)"),
    "dpt_deit_base": ModelCard(_DEIT, APACHE, "DeiT-Base backbone (Table 8)"),
    "dpt_deit_base_distilled": ModelCard(_DEIT_DISTILLED, APACHE, "distilled DeiT-Base backbone (Table 8)"),
    "dpt_resnet50": ModelCard(_RESNET50, BSD, "ResNet-50 backbone (Table 8)"),
    "dpt_resnext101_wsl": ModelCard(_RESNEXT101, NON_COMMERCIAL, "ResNeXt-101-WSL backbone (Table 8)"),
    "midas_v21": ModelCard(_MIDAS_V21, MIT, "the fully convolutional MiDaS v2.1 (Table 9)"),
    "depth_anything_small": ModelCard(
        _depth_anything("small", _LAST, _SMALL_CHANNELS, 64), APACHE, "Depth Anything V1, ViT-S"
    ),
    "depth_anything_base": ModelCard(
        _depth_anything("base", _LAST, _BASE_CHANNELS, 128), APACHE, "Depth Anything V1, ViT-B"
    ),
    "depth_anything_large": ModelCard(
        _depth_anything("large", (21, 22, 23, 24), _LARGE_CHANNELS, 256), APACHE, "Depth Anything V1, ViT-L"
    ),
    "depth_anything_v2_small": ModelCard(
        _depth_anything("small", _QUARTERS, _SMALL_CHANNELS, 64), APACHE, "Depth Anything V2, ViT-S"
    ),
    "depth_anything_v2_base": ModelCard(
        _depth_anything("base", _QUARTERS, _BASE_CHANNELS, 128), NON_COMMERCIAL, "Depth Anything V2, ViT-B"
    ),
    "depth_anything_v2_large": ModelCard(
        _depth_anything("large", (5, 12, 18, 24), _LARGE_CHANNELS, 256),
        NON_COMMERCIAL,
        "Depth Anything V2, ViT-L",
    ),
    "dpt_tiny": ModelCard(_TINY, "", "for tests: a 4-layer transformer of 64 channels"),
    "dpt_small": ModelCard(_SMALL, "", "for demonstrations: learns from scratch on a CPU"),
}


class DPT(nn.Module):
    """A dense prediction transformer (section 3); also the convolutional baselines with the same decoder.

    Attributes:
        config: the `ModelConfig` it was built from.
        mean, std: normalisation of RGB in [0, 1] that the backbone expects.
        size_divisor: heights and widths must be multiples of this: 32 for patches of 16 pixels.
    """

    def __init__(self, config: ModelConfig, pretrained: bool = False):
        super().__init__()
        self.backbone: Backbone = create_backbone(
            config.backbone,
            config.taps,
            pretrained=pretrained,
            interpolation=config.position_interpolation,
            final_norm=config.final_norm,
            arguments=config.backbone_arguments,
        )
        convolutional = [isinstance(tap, str) for tap in config.taps]
        if config.readout != "ignore" and not (self.backbone.readout_tokens or all(convolutional)):
            raise ValueError(f"readout: {config.backbone} has no readout token, so it must be 'ignore'")
        channels = tuple(
            own if is_map else chosen
            for own, chosen, is_map in zip(
                self.backbone.channels, config.channels, convolutional, strict=True
            )
        )
        self.config = dataclasses.replace(config, channels=channels)
        self.reassemble = Reassemble(
            self.backbone.channels,
            convolutional,
            channels,
            config.features,
            config.readout,
            self.backbone.readout_tokens,
        )
        self.fusion = FusionDecoder(config.features, config.batch_norm, config.fusion)
        self.head: nn.Module
        self.auxiliary: nn.Module | None = None
        if config.task == "depth":
            self.head = DepthHead(config.features, config.head_align_corners, config.max_depth)
        else:
            self.head = SegmentationHead(config.features, config.classes)
            if config.auxiliary:
                self.auxiliary = SegmentationHead(config.features, config.classes)

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of RGB in [0, 1]."""
        return self.config.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of RGB in [0, 1]."""
        return self.config.std

    @property
    def size_divisor(self) -> int:
        """Heights and widths of images must be multiples of this number."""
        patch = self.backbone.patch_size
        return 32 if 32 % patch == 0 else patch

    def set_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's layers in the backward pass: less memory, a third more time."""
        self.backbone.checkpointing = enable

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Predict.

        Args:
            images: (B, 3, H, W) float32, normalised by `mean` and `std`; H and W multiples of `size_divisor`.

        Returns:
            Depth models: (B, H, W) float32, non-negative inverse depth (large is near) up to scale and
            shift; metric inverse depth or depth where the config says so. Segmentation models: logits (B,
            classes, H, W) and, while training, those of the auxiliary head if there is one.

        Raises:
            ValueError: if the size does not fit the patches.
        """
        size = (images.shape[-2], images.shape[-1])
        if size[0] % self.backbone.patch_size or size[1] % self.backbone.patch_size:
            raise ValueError(
                f"images of {size[0]} by {size[1]} are no multiples of {self.size_divisor} pixels"
            )
        features, penultimate = self.fusion(self.reassemble(self.backbone(images)))
        output = self.head(features, size)
        if self.config.task == "depth":
            return self._metric(output)
        if self.training and self.auxiliary is not None:
            return output, self.auxiliary(penultimate, size)
        return output

    def _metric(self, prediction: Tensor) -> Tensor:
        config = self.config
        if (config.scale, config.shift) != (1.0, 0.0):
            prediction = config.scale * prediction + config.shift
        return 1 / prediction.clamp(min=1e-8) if config.invert else prediction


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(MODELS)


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> DPT:
    """Build a model of the table `MODELS`.

    Args:
        name: one of `list_models()`.
        pretrained: fetch the backbone's ImageNet weights through timm; the decoder is random either way.
        **overrides: fields of `ModelConfig`. Another `backbone` brings its own mean and std, taps at every
            quarter of its depth, and readout ``"ignore"`` where it has no class token, unless given.

    Raises:
        ValueError: for an unknown name or override, naming it and listing what exists.
    """
    return DPT(resolve_config(name, **overrides), pretrained)


def resolve_config(name: str, **overrides: Any) -> ModelConfig:
    """The config that `create_model` builds from, with the same arguments and errors."""
    _check_choice("model", name, list_models())
    _check_overrides(overrides)
    if "backbone" in overrides:
        chosen = natural_choices(overrides["backbone"], overrides.get("backbone_arguments", {}))
        overrides = {"backbone_arguments": {}} | chosen | overrides
    return dataclasses.replace(MODELS[name].config, **overrides)


def parameter_groups(model: DPT, backbone_lr: float = 1e-5, decoder_lr: float = 1e-4) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser, with the paper's two learning rates (section 4.1)."""
    backbone = list(model.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    decoder = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [
        {"name": "backbone", "params": backbone, "lr": backbone_lr},
        {"name": "decoder", "params": decoder, "lr": decoder_lr},
    ]
