"""The backbones of timm: which families work, and what each of their networks is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import timm

from dpt.layers.backbones import create_backbone, natural_choices
from dpt.layers.late_compiler import shapes_only

EXAMPLES = tuple(
    """
    beit_base_patch16_224 convmixer_768_32 cpubone_nano cs3darknet_focus_s cspnext_tiny davit_tiny
    deepseek_vit_412m deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small
    efficientvit_b0 ese_vovnet19b_slim_dw fasternet_t0 fastvit_t8 focalnet_tiny_srf ghostnet_050
    hardcorenas_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t inception_next_atto lcnetv2_small
    legacy_seresnet18 lowformer_b0 mobilenetv3_small_050 mobilenetv5_base mobilevit_xxs mvitv2_tiny
    naflexvit_base_patch16_parfac_gap nasnetalarge nextvit_small pnasnet5large poolformerv2_s12
    pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m1 res2next50 resnest14d
    resnetv2_18 rexnet_100 sam2_hiera_tiny samvit_base_patch16_224 selecsls42 skresnet18 starnet_s050
    swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 test_byobnet
    test_convnext test_efficientnet test_mambaout test_nfnet test_resnet test_vit tiny_vit_5m_224
    tresnet_m twins_svt_small vgg11 vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224 vitamin_small_224
    xception41p xcit_nano_12_p8_224
    """.split()  # noqa: SIM905
)
"""The smallest network of every family (module of timm) that works."""


@dataclass(frozen=True, slots=True)
class Description:
    """A backbone of timm.

    Attributes:
        name: with the tag of its weights, if timm has any.
        parameters: number of the pruned network's.
        strides: of its four taps, relative to the image.
        licence: of the weights, as timm knows it; empty if it does not.
    """

    name: str
    parameters: int
    strides: tuple[int, ...]
    licence: str


def families() -> dict[str, tuple[str, int]]:
    """Family → its smallest network and the number of all its networks, some of which may not work."""
    members = {module: timm.list_models(module=module) for module in timm.list_modules()}
    found = ((module, name) for module, names in members.items() for name in names if name in EXAMPLES)
    return {module: (name, len(members[module])) for module, name in sorted(found)}


def describe(pattern: str) -> Iterator[Description | str]:
    """Descriptions of the networks whose names fit a `pattern` of timm such as ``convnext*dinov3*``, sorted.

    A word without wildcards is looked for anywhere in the name. Of a network that is not a backbone, why not.
    """
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    weights = timm.list_pretrained(wanted)
    bare = set(timm.list_models(wanted)) - {name.partition(".")[0] for name in weights}
    for name in sorted([*weights, *bare]):
        measured = _measured(name.partition(".")[0])
        if isinstance(measured, str):
            yield measured
        else:
            yield Description(name, *measured, _licence(name))


@cache
def _measured(name: str) -> tuple[int, tuple[int, ...]] | str:
    """Parameters and strides of an architecture, or why it is not a backbone."""
    try:
        taps = natural_choices(name, {})["taps"]
        with shapes_only():
            backbone = create_backbone(name, taps)
    except ValueError as error:
        return str(error)
    return sum(parameter.numel() for parameter in backbone.parameters()), tuple(backbone.strides)


def _licence(name: str) -> str:
    config = timm.get_pretrained_cfg(name) if "." in name else None
    return (config.license if config else None) or ""
