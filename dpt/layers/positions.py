"""Position embeddings of a ViT, resampled to the image's grid of patches and cached by size.

Section 3, "Handling varying image sizes". timm's own resampling is bicubic with antialiasing, which the
published weights were not trained with. DPT's are resampled bilinearly, by size; DINOv2's, which Depth
Anything builds on, bicubically by the factors ((h + 0.1) / H, (w + 0.1) / W) for a table of H × W: another
mapping than by size, except where h × w is H × W and both leave the table as it is.
"""

from collections.abc import Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

REMEMBERED = 16
"""Sizes in the cache; a run has few, and each entry is as large as the tokens of an image."""


class PositionGrid:
    """Resamples a table of position embeddings, once for each size in inference.

    Only inference uses the cache: training needs the gradient, and a program that is being compiled or
    exported must hold the arithmetic, not its result. The cache is not part of the model: it is neither
    copied nor pickled, and not in the state dict.

    An entry is valid for one state of one table. `Tensor._version`, PyTorch's counter of in-place changes, is
    private API (as of PyTorch 2.15; the autograd notes describe it): the tests of this file fail if it moves.

    Args:
        table_size: rows and columns of the table's grid.
        interpolation: ``"bilinear"`` (by size) or ``"bicubic"`` (by DINOv2's factors).
    """

    def __init__(self, table_size: tuple[int, int], interpolation: str):
        self.table_size = table_size
        self.interpolation = interpolation
        self._resampled: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def __call__(self, table: Tensor, height: int, width: int) -> Tensor:
        """`table` (1, table height · table width, D) -> (1, `height` · `width`, D)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or table.is_inference():
            return self._resample(table, height, width)
        key = (height, width, table.data_ptr(), table._version, table.device, table.dtype)
        remembered = self._resampled.get(key)
        if remembered is None:
            if len(self._resampled) >= REMEMBERED:
                self._resampled.clear()
            # the entry holds the table too, so that no other tensor can take its address
            remembered = self._resampled[key] = (table, self._resample(table, height, width))
        return remembered[1]

    def forget(self) -> None:
        """Clear the cache: the table may have changed without a trace, through `.data`."""
        self._resampled.clear()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_resampled": {}}

    def _resample(self, table: Tensor, height: int, width: int) -> Tensor:
        grid = table.transpose(1, 2).unflatten(2, self.table_size)
        if self.interpolation == "bilinear":
            grid = F.interpolate(grid, size=(height, width), mode="bilinear")
        else:
            grid = self._by_factors(grid, height, width)
        return grid.flatten(2).transpose(1, 2)

    def _by_factors(self, grid: Tensor, height: int, width: int) -> Tensor:
        """(1, D, H, W) → (1, D, `height`, `width`), as `F.interpolate` with DINOv2's `scale_factor`.

        Row y is sampled at (y + ½) · H / (height + 0.1) − ½. `F.interpolate` would turn these factors into
        constants of an exported program, so the places are written out; `sym_min` instead of a condition for
        the same reason.
        """
        rows, columns = self.table_size
        offset: Any = 0.1 * torch.sym_min(1, (height - rows) ** 2 + (width - columns) ** 2)
        exact = grid.to(torch.promote_types(grid.dtype, torch.float32))
        count: dict[str, Any] = {"dtype": exact.dtype, "device": exact.device}
        # grid_sample counts from −1 to 1, the outer edges of the table.
        y = 2 * (torch.arange(height, **count) + 0.5) / (height + offset) - 1
        x = 2 * (torch.arange(width, **count) + 0.5) / (width + offset) - 1
        places = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)[None]
        sampled = F.grid_sample(exact, places, mode="bicubic", padding_mode="border", align_corners=False)
        return sampled.to(grid.dtype)
