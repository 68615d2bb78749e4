"""Model config: everything needed to build a model without its weights."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dpt.layers.backbones import TapName
from dpt.layers.networks import check_arguments
from dpt.layers.reassemble import READOUTS
from dpt.layers.same_padding import STANDARDISATIONS

HALF = (0.5, 0.5, 0.5)
LARGEST = {"channels": 8192, "features": 8192, "head_channels": 8192, "classes": 65_536, "image_size": 16_384}
"""Sizes that a config may ask for, checked before anything is built of it."""

_LARGEST_NUMBER = 1e12

RESIZE_RULES = ("minimal", "lower_bound", "upper_bound")
OUTPUT_RESIZES = ("bicubic", "bilinear", "bilinear_aligned")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether `value` is of the type `kind` of a setting; numbers must be finite."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_is_a(value, one) for one in kinds)
    if origin is tuple and isinstance(value, tuple):
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        return len(value) == len(kinds) and all(map(_is_a, value, kinds))
    if kind in (int, float):
        number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        return number and abs(value) < _LARGEST_NUMBER
    return isinstance(value, origin or kind)


def check_choice(what: str, choice: str, choices: Iterable[str]) -> None:
    """Raise a ValueError that names the setting `what` and all `choices` unless `choice` is one of them."""
    if choice not in choices:
        raise ValueError(f"{what}: there is no {choice!r}; choose from {', '.join(choices)}")


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model without its weights; survives a round trip through JSON.

    Attributes:
        backbone: timm name with weight tag.
        backbone_arguments: further arguments of the timm model, e.g. its depth; of `networks.ARGUMENTS`.
        taps: four tapped layers in network order: layer numbers counted from 1, or stages ``"R0"``, ``"R1"``.
        readout: ``"project"``, ``"add"`` or ``"ignore"`` (Table 7).
        channels: channels of the four reassembled maps before the decoder; of a convolutional tap, its own.
        features: channels of the decoder, D̂ in the paper.
        fusion: ``"dpt"``, or ``"midas"`` for the decoder of MiDaS v2.1.
        task: ``"depth"`` or ``"segmentation"``.
        classes: number of classes for segmentation.
        class_names: their names by class index; empty if unknown.
        auxiliary: add the auxiliary segmentation head (section 4.2).
        batch_norm: batch normalisation in the fusion blocks; in the paper for segmentation only.
        scale: with `shift`, makes the network's inverse depth d metric: ``scale · d + shift`` in 1/m, for
            the models fine-tuned on KITTI and NYUv2.
        shift: see `scale`, in 1/m.
        invert: return depth (m) instead of inverse depth.
        max_depth: end in a sigmoid times this depth (m) instead of a ReLU: Depth Anything's metric models.
        head_channels: channels at the size of the image, in the depth head's last hidden layer; its first
            convolution has `features` / 2 (Figure A1b: 128 and 32).
        head_align_corners: `align_corners` of the upsampling in the depth head; off in MiDaS v2.1.
        position_interpolation: ``"bilinear"`` (paper) or ``"bicubic"`` (DINOv2), see `dpt.layers.positions`.
        weight_standardisation: of a hybrid's ResNet: ``"timm"``, or ``"released"`` for the published weights
            of DPT-Hybrid; see `dpt.layers.same_padding`.
        final_norm: apply the backbone's final norm to the taps; DPT does not.
        mean: mean of RGB in [0, 1], for normalisation.
        std: standard deviation of RGB in [0, 1], for normalisation.
        image_size: the target of `dpt.predict.transforms.network_size`, in pixels: the side of a square, or
            width and height.
        resize_rule: the rule of `dpt.predict.transforms.network_size`.
        output_resize: how predictions are brought to the size of the image: ``"bicubic"`` (DPT, MiDaS),
            ``"bilinear"`` (Depth Anything V1) or ``"bilinear_aligned"`` (V2: with aligned corners).
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
    head_channels: int = 32
    head_align_corners: bool = True
    position_interpolation: str = "bilinear"
    weight_standardisation: str = "timm"
    final_norm: bool = False
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    image_size: int | tuple[int, int] = 384
    resize_rule: str = "minimal"
    output_resize: str = "bicubic"
    backbone_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ModelConfig).items():
            if isinstance(value := getattr(self, name), list):
                value = tuple(value)
                object.__setattr__(self, name, value)
            if not _is_a(value, kind):
                raise ValueError(
                    f"{name}: {value!r:.60}, expected {kind if get_args(kind) else kind.__name__}"
                )
        check_choice("readout", self.readout, READOUTS)
        check_choice("fusion", self.fusion, ("dpt", "midas"))
        check_choice("task", self.task, ("depth", "segmentation"))
        check_choice("position_interpolation", self.position_interpolation, ("bilinear", "bicubic"))
        check_choice("weight_standardisation", self.weight_standardisation, STANDARDISATIONS)
        check_choice("output_resize", self.output_resize, OUTPUT_RESIZES)
        check_choice("resize_rule", self.resize_rule, RESIZE_RULES)
        for tap in self.taps:
            if isinstance(tap, str) and not re.fullmatch(r"R\d", tap):
                raise ValueError(f"taps: {tap!r:.60}, expected numbers of layers, or stages R0, R1, …")
        check_arguments(self.backbone_arguments)
        for name, most in LARGEST.items():
            value = getattr(self, name)
            if not all(0 < entry <= most for entry in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{name}: {value}, expected from 1 to {most}")
        if min(self.std) <= 0:
            raise ValueError(f"std: {self.std}, expected numbers above 0")
        if self.scale == 0 or (self.max_depth is not None and self.max_depth <= 0):
            raise ValueError(f"scale: {self.scale}, max_depth: {self.max_depth}; expected 0 for neither")
        if len(self.channels) != 4:
            raise ValueError(f"channels: expected four numbers, one per stage, not {self.channels}")
        if self.class_names and len(self.class_names) != self.classes:
            raise ValueError(f"class_names: {len(self.class_names)} names for {self.classes} classes")

    @property
    def metric(self) -> bool:
        """Whether predictions are in metres or 1/m, not up to an unknown scale and shift."""
        return self.predicts_depth or (self.scale, self.shift) != (1.0, 0.0)

    @property
    def quantity(self) -> str:
        """What predictions are: ``"depth"``, ``"inverse_depth"`` or ``"classes"``."""
        if self.task == "segmentation":
            return "classes"
        return "depth" if self.predicts_depth else "inverse_depth"

    @property
    def unit(self) -> str:
        """``"m"``, ``"1/m"``, ``"relative"`` (up to an unknown scale and shift) or ``"class"``."""
        if self.task == "segmentation":
            return "class"
        return ("m" if self.predicts_depth else "1/m") if self.metric else "relative"

    @property
    def meaning(self) -> str:
        """Quantity and unit of predictions, in words."""
        return {
            "m": "depth in metres",
            "1/m": "inverse depth in 1/metres, larger is nearer",
            "relative": "inverse depth up to an unknown scale and shift, larger is nearer",
            "class": f"indices of {self.classes} classes",
        }[self.unit]

    @property
    def side(self) -> int:
        """The shorter side of `image_size`, in pixels."""
        return self.image_size if isinstance(self.image_size, int) else min(self.image_size)

    @property
    def predicts_depth(self) -> bool:
        """Whether predictions are depth in metres, not inverse depth."""
        return self.invert or self.max_depth is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON."""
        fields = dataclasses.asdict(self).items()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "ModelConfig":
        """The config of the dict `plain` of `to_dict`; ValueError for an unknown key."""
        check_overrides(plain)
        return cls(**plain)


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first key of `overrides` that is not a field of `ModelConfig`."""
    known = [entry.name for entry in dataclasses.fields(ModelConfig)]
    for key in overrides:
        check_choice("model setting", key, known)
