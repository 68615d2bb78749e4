"""BEiT at any size: relative position biases resampled to the image's grid of patches, as in MiDaS 3.1."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

_OF_PREFIX = 3
"""Last rows of a table: from class token to patches, from patches to class token, class token to itself."""


class BeitLayers(nn.Module):
    """The layers of a timm `Beit`, for images of any size.

    Args:
        vit: the timm model; changed in place, its tables of relative positions become those of this module.
        layers: tapped ones, counted from 1.
        final_norm: apply the model's final norm to the tapped tokens.

    Raises:
        ValueError: if the model has no table of relative positions in every layer.
    """

    def __init__(self, vit: Any, layers: Sequence[int], final_norm: bool):
        super().__init__()
        if vit.pos_embed is not None or vit.rel_pos_bias is not None:
            raise ValueError("backbone: a BEiT needs relative positions in every layer, and no other")
        vit.prune_intermediate_layers([layer - 1 for layer in layers], prune_norm=not final_norm)
        vit.patch_embed.strict_img_size = False
        self.layers, self.window, self.checkpointing = list(layers), vit.patch_embed.grid_size, False
        self.tables = nn.ParameterList(block.attn.relative_position_bias_table for block in vit.blocks)
        for block in vit.blocks:
            block.attn.relative_position_bias_table = block.attn.relative_position_index = None
        self.vit = vit

    def forward(self, images: Tensor) -> list[Tensor]:
        """`images` (B, 3, H, W) -> tokens (B, 1 + hw, D) of the tapped layers, the class token first."""
        vit: Any = self.vit
        patch = vit.patch_embed.patch_size
        grid = images.shape[2] // patch[0], images.shape[3] // patch[1]
        patches = vit.patch_embed(images)
        tokens = torch.cat([vit.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        index = relative_index(*grid, tokens.device)
        found = []
        for layer, (block, table) in enumerate(zip(vit.blocks, self.tables, strict=True), start=1):
            bias = resampled(table, self.window, grid)[index].permute(2, 0, 1)[None]
            if self.checkpointing and self.training:
                tokens = torch.utils.checkpoint.checkpoint(block, tokens, bias, use_reentrant=False)
            else:
                tokens = block(tokens, shared_rel_pos_bias=bias)
            if layer in self.layers:
                found.append(vit.norm(tokens))  # an identity, unless built with the final norm
        return found


def resampled(table: Tensor, window: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Biases by relative position, for another grid of patches.

    Between rows of a grid of h there are 2h − 1 distances, so the table has (2h − 1)(2w − 1) + 3 rows.

    Args:
        table: (R, heads), for the grid that the weights were trained at.
        window: rows and columns of that grid.
        grid: those of the image's.

    Returns:
        The table of `grid`: distances resampled bilinearly, the rows of the class token as they are.
    """
    if grid == window:
        return table
    distances = table[:-_OF_PREFIX].T.unflatten(1, [2 * side - 1 for side in window])[None]
    size = [2 * side - 1 for side in grid]
    distances = F.interpolate(distances, size=size, mode="bilinear")
    return torch.cat([distances[0].flatten(1).T, table[-_OF_PREFIX:]])


def relative_index(height: int, width: int, device: torch.device) -> Tensor:
    """(1 + hw, 1 + hw) rows of the table of a grid `height` × `width`: query, key → row; on `device`.

    Query (y, x) and key (y', x') have row (y − y' + h − 1)(2w − 1) + (x − x' + w − 1).
    """
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    y = rows[:, None] - rows + height - 1
    x = columns[:, None] - columns + width - 1
    index = (y[:, None, :, None] * (2 * width - 1) + x[None, :, None, :]).flatten(2).flatten(0, 1)
    last = (2 * height - 1) * (2 * width - 1)
    # Filled on the device: a number that is copied to a GPU cannot be part of a CUDA graph.
    of_class_token = torch.full_like(index[:1, :1], last + 2)
    keys = torch.cat([of_class_token, torch.full_like(index[:, :1], last + 1)])
    return torch.cat([keys, torch.cat([torch.full_like(index[:1], last), index])], dim=1)
