"""Backbones: any network that turns an image into four tapped feature maps.

A tap is named as in the paper: an integer ``l`` is the output of the l-th transformer layer, counted from 1
(section 3), and ``"R0"``, ``"R1"``, ... are stages of a network that halves its resolution from one to the
next (supplement A), either the whole backbone (ResNet, ConvNeXt, Swin) or the embedding network of a hybrid.
All later layers see four `Tap`s, whatever the backbone.

All networks come from timm, pruned to what the taps need: no classifier, no layer after the last tap, and no
final norm if the taps are taken before it. So every parameter takes part in every forward pass and
DistributedDataParallel needs no search for unused ones.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import dpt.layers.small_hybrid  # noqa: F401 (registers a model)
from dpt.layers.beit import BeitLayers
from dpt.layers.late_compiler import shapes_only
from dpt.layers.networks import STRIDES, any_size, build, channels_last, fit_to, known, reductions
from dpt.layers.positions import PositionGrid
from dpt.layers.same_padding import pad_for_even_sizes

TapName = int | str


class Tap(NamedTuple):
    """The input of one Reassemble stage.

    Attributes:
        features: (B, C, h, w) feature map.
        prefix: (B, P, C) prefix tokens, the class token first; None for a stage or a ViT without them.
    """

    features: Tensor
    prefix: Tensor | None


class ViTBackbone(nn.Module):
    """A timm `VisionTransformer`, plain, distilled or hybrid, tapped between its layers.

    Position embeddings are resampled as the published weights need it (`dpt.layers.positions`), hence the
    forward pass here instead of `forward_intermediates`.

    Args:
        vit: the timm model; pruned in place.
        taps: four taps in network order, e.g. ``("R0", "R1", 9, 12)``.
        interpolation: of `dpt.layers.positions.PositionGrid`.
        final_norm: apply the model's final norm to the tapped tokens.
        standardisation: of `dpt.layers.same_padding`, for a hybrid's ResNet.
    """

    def __init__(
        self,
        vit: Any,
        taps: Sequence[TapName],
        interpolation: str,
        final_norm: bool,
        standardisation: str = "timm",
    ):
        super().__init__()
        self.stages = [int(tap[1:]) for tap in taps if isinstance(tap, str)]
        self.layers = [tap for tap in taps if isinstance(tap, int)]
        embedding = getattr(vit.patch_embed, "backbone", None)
        stage_channels = [info["num_chs"] for info in getattr(embedding, "feature_info", [])[1:]]
        _check_taps(taps, layers=len(vit.blocks), stages=len(getattr(embedding, "stages", ())))
        if embedding is not None:
            pad_for_even_sizes(embedding, standardisation)
        self.channels = [stage_channels[stage] for stage in self.stages] + [vit.embed_dim] * len(self.layers)
        self.prefix_tokens = vit.num_prefix_tokens
        self.readout_tokens = int(vit.cls_token is not None) + hasattr(vit, "dist_token")
        self.patch_size = vit.patch_embed.feat_ratio()
        self.strides = [STRIDES[stage] for stage in self.stages] + [self.patch_size] * len(self.layers)
        self.position_grid = PositionGrid(vit.patch_embed.grid_size, interpolation)
        self.checkpointing = False
        vit.prune_intermediate_layers([layer - 1 for layer in self.layers], prune_norm=not final_norm)
        self.vit: Any = vit

    def set_checkpointing(self, enable: bool) -> None:
        """`enable` recomputing layers and stages in the backward pass."""
        self.checkpointing = enable

    @property
    def embedding_stages(self) -> list[nn.Module]:
        """Those of a hybrid's ResNet, else none."""
        return list(getattr(getattr(self.vit.patch_embed, "backbone", None), "stages", []))

    def forward(self, images: Tensor) -> list[Tap]:
        """`images` (B, 3, H, W) -> four taps in network order, (B, C, H/p, W/p) for transformer layers."""
        stages, patches = self.embed(images)
        grid = patches.shape[1:3]
        tokens = self.tokens(patches)
        taps = [Tap(stage, None) for stage in stages]
        for layer, block in enumerate(self.vit.blocks, start=1):
            tokens = self._run(block, tokens)
            if layer in self.layers:
                # norm is an identity unless the backbone was built with its final norm
                sizes = [self.prefix_tokens, tokens.shape[1] - self.prefix_tokens]
                prefix, rest = self.vit.norm(tokens).split(sizes, dim=1)
                features = rest.transpose(1, 2).unflatten(2, grid)
                taps.append(Tap(features, prefix if self.prefix_tokens else None))
        return taps

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """`images` (B, 3, H, W) -> tapped stages of the embedding network, patch embeddings (B, h, w, D)."""
        embedding = getattr(self.vit.patch_embed, "backbone", None)
        if embedding is None or not self.stages:
            return [], self.vit.patch_embed(images)
        features = embedding.stem(images)
        tapped = []
        for index, stage in enumerate(embedding.stages):
            features = self._run(stage, features)
            if index in self.stages:
                tapped.append(features)
        return tapped, self.vit.patch_embed.proj(embedding.norm(features)).permute(0, 2, 3, 1)

    def tokens(self, patches: Tensor) -> Tensor:
        """Patch embeddings `patches` (B, h, w, D) -> the tokens t⁰ (B, P + hw, D) of the first layer."""
        vit = self.vit
        prefix_positions, patch_positions = self.positions(patches.shape[1], patches.shape[2])
        patches = patches.flatten(1, 2) + patch_positions
        prefix = [vit.cls_token, getattr(vit, "dist_token", None), vit.reg_token]
        prefix = [token.expand(patches.shape[0], -1, -1) for token in prefix if token is not None]
        if prefix:
            patches = torch.cat([torch.cat(prefix, dim=1) + prefix_positions, patches], dim=1)
        return vit.norm_pre(vit.patch_drop(vit.pos_drop(patches)))

    def positions(self, height: int, width: int) -> tuple[Tensor | float, Tensor]:
        """Position embeddings of the prefix tokens, (1, P, D) or 0 without, and of the grid, (1, hw, D).

        `height` and `width` are those of the grid of patches.
        """
        vit = self.vit
        if vit.no_embed_class:
            prefix: Tensor | float = 0.0
            table = vit.pos_embed
        else:
            prefix, table = vit.pos_embed.tensor_split([self.prefix_tokens], dim=1)
        return prefix, self.position_grid(table, height, width)

    def train(self, mode: bool = True) -> "ViTBackbone":
        """As `torch.nn.Module.train`."""
        self.position_grid.forget()
        return super().train(mode)

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and self.training:
            return torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
        return module(x)


class BeitBackbone(nn.Module):
    """A timm `Beit`; `vit`, `taps` and `final_norm` are those of `ViTBackbone`, without stages."""

    prefix_tokens = 1
    readout_tokens = 1

    def __init__(self, vit: Any, taps: Sequence[TapName], final_norm: bool):
        super().__init__()
        _check_taps(taps, layers=len(vit.blocks), stages=0)
        self.channels = [vit.embed_dim] * len(taps)
        self.patch_size = vit.patch_embed.patch_size[0]
        self.strides = [self.patch_size] * len(taps)
        self.beit = BeitLayers(vit, [int(tap) for tap in taps], final_norm)

    def set_checkpointing(self, enable: bool) -> None:
        """`enable` recomputing layers in the backward pass."""
        self.beit.checkpointing = enable

    def forward(self, images: Tensor) -> list[Tap]:
        """`images` (B, 3, H, W) -> four taps (B, C, H/p, W/p) in network order."""
        grid = [side // self.patch_size for side in images.shape[2:]]
        return [
            Tap(tokens[:, 1:].transpose(1, 2).unflatten(2, grid), tokens[:, :1])
            for tokens in self.beit(images)
        ]


class IntermediatesBackbone(nn.Module):
    """Any other timm network of layers with `forward_intermediates` (EVA, DINOv3, NaFlexViT, XCiT, ...).

    `vit`, `taps` and `final_norm` are those of `ViTBackbone`, without stages.
    """

    def __init__(self, vit: Any, taps: Sequence[TapName], final_norm: bool):
        super().__init__()
        strides = reductions(vit)
        _check_taps(taps, layers=len(strides), stages=0)
        self.indices = [int(tap) - 1 for tap in taps]
        self.channels = [vit.feature_info[index]["num_chs"] for index in self.indices]
        self.patch_size = strides[0]
        self.strides = [self.patch_size] * len(taps)
        with_prefix = "return_prefix_tokens" in signature(vit.forward_intermediates).parameters
        self.prefix_tokens = getattr(vit, "num_prefix_tokens", 0) if with_prefix else 0
        self.readout_tokens = int(self.prefix_tokens and getattr(vit, "cls_token", None) is not None)
        self.final_norm = final_norm
        vit.prune_intermediate_layers(self.indices, prune_norm=not final_norm, prune_head=True)
        self.vit: Any = vit

    def set_checkpointing(self, enable: bool) -> None:
        """`enable` recomputing layers in the backward pass."""
        self.vit.set_grad_checkpointing(enable)

    def forward(self, images: Tensor) -> list[Tap]:
        """`images` (B, 3, H, W) -> four taps (B, C, H/p, W/p) in network order."""
        wanted: dict[str, Any] = {
            "indices": self.indices,
            "norm": self.final_norm,
            "intermediates_only": True,
        }
        if not self.prefix_tokens:
            return [Tap(tap, None) for tap in self.vit.forward_intermediates(images, **wanted)]
        taps = self.vit.forward_intermediates(images, return_prefix_tokens=True, **wanted)
        return [Tap(*tap) for tap in taps]


class StagedBackbone(nn.Module):
    """A timm `network` of stages, convolutional or of windows, tapped at strides 4, 8, 16 and 32.

    `taps` must be R0, R1, R2, R3; ValueError for others.
    """

    prefix_tokens = 0
    readout_tokens = 0
    patch_size = 16
    """Nominal: the network needs multiples of 32 pixels, like a transformer with patches of 16."""

    strides = STRIDES

    def __init__(self, network: Any, taps: Sequence[TapName]):
        super().__init__()
        if list(taps) != ["R0", "R1", "R2", "R3"]:
            raise ValueError(f"taps of a backbone of stages are R0, R1, R2, R3, not {list(taps)}")
        self.channels: list[int] = network.feature_info.channels()
        self.cnn: Any = network

    def set_checkpointing(self, enable: bool) -> None:
        """`enable` recomputing stages in the backward pass."""
        getattr(self.cnn, "model", self.cnn).set_grad_checkpointing(enable)

    def forward(self, images: Tensor) -> list[Tap]:
        """`images` (B, 3, H, W) -> the four stages (B, C, H/s, W/s) at strides s of 4, 8, 16 and 32."""
        fit_to(self.cnn, images.shape[2:])
        stages = self.cnn(images)
        if channels_last(self.cnn):
            stages = [stage.permute(0, 3, 1, 2).contiguous() for stage in stages]
        return [Tap(stage, None) for stage in stages]


Backbone = ViTBackbone | BeitBackbone | IntermediatesBackbone | StagedBackbone


def natural_choices(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Default settings of `ModelConfig` for the timm model `name`, built with `arguments`.

    Taps at every quarter of a transformer's layers, as the paper has them for ViT-Base, or the four stages of
    a network of stages; no readout without a class token; the normalisation it was trained with.

    Raises:
        ValueError: if that is not a backbone, with the reason: by its strides, or because it does not take
            images of any size.
    """
    with shapes_only():
        network = build(known(name), False, arguments, stages=False)
        layers = len(strides) if len(set(strides := reductions(network))) == 1 else 0
        taps: tuple[TapName, ...] = tuple(layers * quarter // 4 for quarter in (1, 2, 3, 4))
        if not layers:
            taps = ("R0", "R1", "R2", "R3")
        readout = getattr(network, "cls_token", None) is not None
        if len(set(taps)) == 4:  # else of so few layers that taps must be given
            backbone = create_backbone(name, taps, arguments=arguments)
            any_size(backbone, name)
            readout = backbone.readout_tokens > 0
    choices = {key: network.pretrained_cfg[key] for key in ("mean", "std") if network.pretrained_cfg.get(key)}
    if layers and not readout:
        choices["readout"] = "ignore"
    return {**choices, "taps": taps}


def create_backbone(
    name: str,
    taps: Sequence[TapName],
    *,
    pretrained: bool = False,
    interpolation: str = "bilinear",
    final_norm: bool = False,
    standardisation: str = "timm",
    arguments: Mapping[str, Any] | None = None,
) -> Backbone:
    """Build the timm model `name` and tap it.

    Args:
        name: timm name, with its weight tag if `pretrained`.
        taps: four taps in network order, e.g. ``(3, 6, 9, 12)`` or ``("R0", "R1", 9, 12)``.
        pretrained: fetch the weights that timm lists for the tag.
        interpolation: of `dpt.layers.positions.PositionGrid`.
        final_norm: apply the network's final norm to the tapped tokens (DINOv2 style; DPT does not).
        standardisation: of `dpt.layers.same_padding`, for a hybrid's ResNet.
        arguments: further arguments of the timm model, e.g. its depth; of `dpt.layers.networks.ARGUMENTS`.

    Raises:
        ValueError: if timm does not know the name or the network does not have the taps.
    """
    stages = all(isinstance(tap, str) for tap in taps)
    network = build(name, pretrained, arguments or {}, stages)
    if stages:
        return StagedBackbone(network, taps)
    if isinstance(network, VisionTransformer) and network.pos_embed is not None:
        return ViTBackbone(network, taps, interpolation, final_norm, standardisation)
    if isinstance(network, Beit):
        return BeitBackbone(network, taps, final_norm)
    return IntermediatesBackbone(network, taps, final_norm)


def _check_taps(taps: Sequence[TapName], layers: int, stages: int) -> None:
    available = [f"R{index}" for index in range(stages)] + list(range(1, layers + 1))
    unknown = [tap for tap in taps if tap not in available]
    if unknown:
        raise ValueError(f"no tap {unknown[0]!r}; this backbone has {available}")
    places = [available.index(tap) for tap in taps]
    if len(taps) != 4 or places != sorted(set(places)):
        raise ValueError(f"taps must be four different ones in network order, not {list(taps)}")
