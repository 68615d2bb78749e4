"""A hybrid small enough to learn from scratch on a CPU: three stages of a ResNet, then a transformer.

The parts of timm's hybrids at an eighth of the width. Convolutions learn edges and textures from few images;
the transformer relates what they found. Importing this module registers the model with timm.
"""

from functools import partial
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import BatchNormAct2d, HybridEmbed, create_conv2d
from timm.models import ResNetV2, VisionTransformer, build_model_with_cfg, register_model


@register_model
def vit_hybrid_small(pretrained: bool = False, **arguments: Any) -> VisionTransformer:
    """Stages R0, R1 and R2 of 32, 48 and 96 channels at strides 4, 8 and 16, then four layers of 96 channels.

    `arguments` are those of timm's `VisionTransformer`. There are no `pretrained` weights: RuntimeError.
    """
    stages = ResNetV2(
        layers=[1, 1, 1],
        channels=(32, 48, 96),
        stem_chs=32,
        basic=True,
        num_classes=0,
        global_pool="",
        norm_layer=BatchNormAct2d,
        conv_layer=create_conv2d,
    )
    sizes = {"img_size": (64, 96), "patch_size": 1, "embed_dim": 96, "depth": 4, "num_heads": 3}
    embed = partial(HybridEmbed, backbone=stages)
    described = {
        "architecture": "vit_hybrid_small",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
    }
    settings = {**sizes, "embed_layer": embed, **arguments, "pretrained_cfg": described}
    return build_model_with_cfg(VisionTransformer, "vit_hybrid_small", pretrained, **settings)
