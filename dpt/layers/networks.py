"""Networks of timm: building them, from arguments that a config may name, and how they pass on features.

timm's networks are of two kinds here. Those with stages at strides 4, 8, 16 and 32 (ResNet, ConvNeXt, Swin)
give one map a stage; those of layers at one stride (ViT, XCiT) give tokens. `timm` knows it of each by its
`feature_info`.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import timm
import torch
from timm.models.hiera import Hiera, Reroll, Unroll
from torch import nn

from dpt.layers.late_compiler import shapes_only

STRIDES = (4, 8, 16, 32)
"""Of the four stages that the decoder needs."""

ARGUMENTS: dict[str, float] = {
    **dict.fromkeys(("depth", "depths", "layers"), 256),
    **dict.fromkeys(("embed_dim", "embed_dims", "dims", "channels", "num_features", "head_dim"), 8192),
    **dict.fromkeys(("num_heads", "heads", "window_size", "patch_size", "stem_width", "reg_tokens"), 256),
    **dict.fromkeys(("img_size", "init_values"), 4096),
    **dict.fromkeys(("mlp_ratio", "mlp_ratios"), 16),
    **dict.fromkeys(("drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate"), 1),
    **dict.fromkeys(("pos_drop_rate", "patch_drop_rate", "drop_block_rate"), 1),
    **dict.fromkeys(("class_token", "qkv_bias", "qk_norm", "no_embed_class", "pre_norm"), 1),
}
"""Argument of a network that a config may set → its largest value. Others load files, among other things."""

_MOST_ENTRIES = 64
_MOST_NUMBERS = 2**32
"""In all tensors of a network: four times those of the largest ViTs."""


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first of the `arguments` that is not of `ARGUMENTS`, or too large."""
    if not isinstance(arguments, Mapping):
        raise ValueError(f"backbone_arguments: {arguments!r:.60}, expected arguments by name")
    for name, value in arguments.items():
        if name not in ARGUMENTS:
            raise ValueError(f"backbone_arguments: there is no {name!r}; choose from {', '.join(ARGUMENTS)}")
        entries = value if isinstance(value, (list, tuple)) else [value]
        most = ARGUMENTS[name]
        known = all(isinstance(entry, (int, float)) and 0 <= entry <= most for entry in entries)
        if not known or len(entries) > _MOST_ENTRIES:
            raise ValueError(
                f"backbone_arguments: {name} is {str(value)[:60]}, expected a number from 0 to {most:g}, "
                f"or a list of at most {_MOST_ENTRIES} of them"
            )


def check_size(network: nn.Module) -> None:
    """Raise a ValueError if a `network`, which may be on the meta device, has more than `_MOST_NUMBERS`."""
    numbers = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    if numbers > _MOST_NUMBERS:
        raise ValueError(f"a network of {numbers:.1e} numbers, expected at most {_MOST_NUMBERS:.1e}")


def known(name: str) -> str:
    """The `name` itself; ValueError if timm has no such network."""
    if not isinstance(name, str) or not timm.is_model(name):
        raise ValueError(f"backbone: timm {timm.__version__} has no model {name!r}; see `dpt backbones`")
    return name


def build(name: str, pretrained: bool, arguments: Mapping[str, Any], stages: bool) -> Any:
    """Build a network of timm for images of any size, as far as it has an argument for that.

    Args:
        name: timm name, with its weight tag if `pretrained`.
        pretrained: fetch the weights that timm lists for the tag.
        arguments: of `ARGUMENTS`.
        stages: build what gives its `STRIDES`, else a network without classifier.

    Raises:
        ValueError: if timm does not know the name or an argument, or there are no such stages; before it is
            built, if it would be too large.
    """
    check_arguments(arguments)
    given = dict(arguments)
    if given and torch.get_default_device().type != "meta":
        with shapes_only():
            check_size(_created(known(name), False, given))
    if stages:
        with shapes_only():
            found = reductions(_created(known(name), False, given))
        if not set(STRIDES) <= set(found):
            raise ValueError(f"backbone: expected stages at strides 4, 8, 16 and 32, not {found}")
        last = {stride: index for index, stride in enumerate(found)}
        given |= {"features_only": True, "out_indices": tuple(last[stride] for stride in STRIDES)}
    else:
        given["num_classes"] = 0
    network = _created(known(name), pretrained, given)
    if isinstance(model := getattr(network, "model", None), Hiera):
        _resample_positions(model)
    return network


def _created(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> Any:
    flexible: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}]
    try:
        for more in flexible:
            with suppress(TypeError):  # has no such argument
                return timm.create_model(name, pretrained=pretrained, **arguments, **more)
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except (TypeError, LookupError, AssertionError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"backbone: timm cannot build {name} ({error})") from error


def reductions(network: Any) -> list[int]:
    """Strides, relative to the image, of what a timm `network` gives: one a stage or layer."""
    info = getattr(network, "feature_info", None) or []
    return [int(entry["reduction"]) for entry in (info if isinstance(info, list) else info.info)]


def channels_last(network: Any) -> bool:
    """Whether the stages of `network` are (B, h, w, C)."""
    return str(getattr(network, "output_fmt", "NCHW")).upper().endswith("NHWC")


def fit_to(network: Any, size: Sequence[int]) -> None:
    """Prepare `network` for images of a `size` (H, W): Hiera keeps the order of its tokens by size."""
    model = getattr(network, "model", None)
    if not isinstance(model, Hiera):
        return
    tokens = [side // stride for side, stride in zip(size, model.patch_stride, strict=True)]
    if tokens != list(model.tokens_spatial_shape):
        places: Any = [list(size), model.patch_stride, [model.q_stride] * len(model.stage_ends[:-1])]
        model.tokens_spatial_shape = tokens
        model.mask_spatial_shape = [n // unit for n, unit in zip(tokens, model.mask_unit_size, strict=True)]
        model.unroll = Unroll(*places)
        reroll: Any = Reroll
        model.reroll = reroll(*places, model.stage_ends, model.q_pool)


def _resample_positions(model: Hiera) -> None:
    """Let a Hiera of one table of positions resample it, as one with a table for a window as well does."""
    if model.pos_embed is not None and model.pos_embed_win is None:
        grid = model.pos_embed.detach().transpose(1, 2).unflatten(2, model.tokens_spatial_shape)
        model.pos_embed = nn.Parameter(grid.contiguous())
        del model.pos_embed_win
        window = grid.new_zeros(1, grid.shape[1], *model.mask_unit_size)
        model.register_buffer("pos_embed_win", window, persistent=False)


def any_size(backbone: Any, name: str) -> None:
    """Raise a ValueError unless the `backbone` of the network `name`, on the meta device, takes two sizes."""
    divisor = 32 if 32 % backbone.patch_size == 0 else backbone.patch_size
    for rows, columns in ((10, 7), (4, 6)):
        size = (rows * divisor, columns * divisor)
        try:
            taps = backbone.eval()(torch.zeros(2, 3, *size, device="meta"))
        except Exception as error:  # whatever the code of a network raises
            # The sentences after the first say how to call timm otherwise, which is not up to the user.
            reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
            if "meta tensor" in reason:
                reason = "it computes sizes from values of tensors, so that they follow from no size of image"
            raise ValueError(f"backbone: {name} cannot take images of any size ({reason})") from error
        found = [tuple(tap.features.shape[2:]) for tap in taps]
        if found != [(size[0] // stride, size[1] // stride) for stride in backbone.strides]:
            raise ValueError(f"backbone: {name} gives maps of {found} for images of {size}")
