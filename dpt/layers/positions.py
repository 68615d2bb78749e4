"""Position embeddings of a ViT, resampled to the image's grid of patches and cached by size.

Section 3, "Handling varying image sizes". timm's own resampling is bicubic with antialiasing, which the
published weights were not trained with.
"""

from collections.abc import Hashable

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
        interpolation: ``"bilinear"`` or ``"bicubic"``.
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
        grid = F.interpolate(grid, size=(height, width), mode=self.interpolation)
        return grid.flatten(2).transpose(1, 2)
