"""Position embeddings of a ViT, resampled to the image's grid of patches and remembered for each size.

Section 3, "Handling varying image sizes". timm's own resampling is bicubic with antialiasing, which the
published weights were not trained with.
"""

from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

REMEMBERED = 16
"""Sizes that are remembered at a time; those of one run are few, and each is as large as the tokens."""


class PositionGrid:
    """Resamples a table of position embeddings, once for each size that is predicted.

    Only predictions remember: training needs the gradient, and a program that is being compiled or exported
    must hold the arithmetic, not its result. What is remembered is no part of the model: copies and pickles
    of it start empty, and so does the state dict.
    """

    def __init__(self, table_size: tuple[int, int], interpolation: str):
        self.table_size = table_size
        self.interpolation = interpolation
        self._resampled: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def __call__(self, table: Tensor, height: int, width: int) -> Tensor:
        """(1, table height · table width, D) -> (1, height · width, D)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or table.is_inference():
            return self._resample(table, height, width)
        key = (height, width, table.data_ptr(), table._version, table.device, table.dtype)
        remembered = self._resampled.get(key)
        if remembered is None:
            if len(self._resampled) >= REMEMBERED:
                self._resampled.clear()
            # the table is kept as well, so that no other can take its address
            remembered = self._resampled[key] = (table, self._resample(table, height, width))
        return remembered[1]

    def forget(self) -> None:
        """Start empty again: the table may have changed in a way that leaves no trace."""
        self._resampled.clear()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_resampled": {}}

    def _resample(self, table: Tensor, height: int, width: int) -> Tensor:
        grid = table.transpose(1, 2).unflatten(2, self.table_size)
        grid = F.interpolate(grid, size=(height, width), mode=self.interpolation)
        return grid.flatten(2).transpose(1, 2)
