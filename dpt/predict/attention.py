"""Attention maps of chosen layers and reference tokens (supplement B, Figures A4 and A5)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dpt.layers.backbones import ViTBackbone
from dpt.model import DPT

CORNERS = ((0, 0), (-1, -1))
"""The paper's reference tokens: upper left and lower right."""


@torch.no_grad()
def attention_maps(
    model: DPT,
    images: Tensor,
    layers: Sequence[int] | None = None,
    references: Sequence[tuple[int, int]] = CORNERS,
) -> Tensor:
    """How much a reference token attends to every patch, averaged over the heads.

    Args:
        model: with a ViT backbone, patches of p pixels.
        images: (B, 3, H, W), normalised.
        layers: counted from 1; the tapped ones by default.
        references: positions (row, column) in the grid of patches; negative ones count from the far end.

    Returns:
        (B, layers, references, H/p, W/p) float32; a map sums to 1 minus the attention to the prefix tokens.

    Raises:
        ValueError: see `check_layers`.
    """
    backbone = check_layers(model, layers or ())
    layers = backbone.layers if layers is None else layers
    _, patches = backbone.embed(images)
    height, width = patches.shape[1:3]
    prefix = backbone.prefix_tokens
    # Tokens: the prefix, then the grid row by row; −1 % height is the last row.
    rows = torch.tensor([prefix + row % height * width + column % width for row, column in references])
    tokens = backbone.tokens(patches)
    maps = {}
    for layer, block in enumerate(backbone.vit.blocks, start=1):
        if layer in layers:
            maps[layer] = _attention_of(block, tokens, rows.to(tokens.device))[:, :, prefix:]
        tokens = block(tokens)
    return torch.stack([maps[layer] for layer in layers], dim=1).unflatten(-1, (height, width))


def check_layers(model: DPT, layers: Sequence[int]) -> ViTBackbone:
    """The backbone of `model`, after a check that it has attention maps of `layers`, counted from 1.

    Raises ValueError if it is not a ViT, or has fewer layers.
    """
    backbone = model.backbone
    if not isinstance(backbone, ViTBackbone):
        raise ValueError(f"no attention maps of {model.config.backbone}")
    unknown = [layer for layer in layers if not 1 <= layer <= len(backbone.vit.blocks)]
    if unknown:
        raise ValueError(f"no layer {unknown[0]}; this backbone has 1 to {len(backbone.vit.blocks)}")
    return backbone


def _attention_of(block: torch.nn.Module, tokens: Tensor, rows: Tensor) -> Tensor:
    """Rows (R,) of the softmax of a timm block for `tokens` (B, N, D), averaged over heads: (B, R, N)."""
    attention = block.get_submodule("attn")
    normalised = block.get_submodule("norm1")(tokens)
    projected = attention.get_submodule("qkv")(normalised)
    queries, keys, _ = projected.unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
    queries = attention.get_submodule("q_norm")(queries.transpose(1, 2)[:, :, rows])
    keys = attention.get_submodule("k_norm")(keys.transpose(1, 2))
    scores = (queries * attention.scale).float() @ keys.float().transpose(-2, -1)
    return scores.softmax(dim=-1).mean(dim=1)
