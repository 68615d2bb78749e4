"""Fusion: a RefineNet decoder that merges four maps from coarse to fine (section 3, Figures 1 and A1a)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dpt.layers.upsampling import Upsampling


class ResidualConvUnit(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), batch-normalised for segmentation only (Figure A1a).

    Args:
        features: channels, F.
        batch_norm: normalise after both convolutions.
        relu_skip: add ReLU(x) instead of x: what MiDaS v2.1 computes, whose first ReLU works in place.
    """

    def __init__(self, features: int, batch_norm: bool = False, relu_skip: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, kernel_size=3, padding=1, bias=not batch_norm)
        self.conv2 = nn.Conv2d(features, features, kernel_size=3, padding=1, bias=not batch_norm)
        self.norm1 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.relu_skip = relu_skip

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, F, h, w) -> (B, F, h, w)."""
        activated = F.relu(x)
        residual = self.norm1(self.conv1(activated))
        residual = self.norm2(self.conv2(F.relu(residual)))
        return residual + (activated if self.relu_skip else x)


class FeatureFusion(nn.Module):
    """Add a skip connection, refine, upsample bilinearly and project.

    Args:
        features: channels, F.
        has_skip: False for the deepest block, which has no coarser map to merge with a skip connection.
        batch_norm: see `ResidualConvUnit`.
        style: ``"dpt"``, or ``"midas"`` for the blocks of MiDaS v2.1, without projection.
    """

    def __init__(self, features: int, has_skip: bool, batch_norm: bool, style: str):
        super().__init__()
        relu_skip = style == "midas"
        self.skip = ResidualConvUnit(features, batch_norm, relu_skip) if has_skip else None
        self.refine = ResidualConvUnit(features, batch_norm, relu_skip)
        self.project = nn.Conv2d(features, features, kernel_size=1) if style == "dpt" else nn.Identity()
        self.upsample = Upsampling()

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """The coarser map `x` and the `skip` connection, both (B, F, h, w) -> (B, F, *`size`)."""
        if self.skip is not None and skip is not None:
            x = x + self.skip(skip)
        # As published the projection follows the upsampling. The weights of bilinear interpolation add up to
        # one, so a 1×1 convolution commutes with it, and before it costs a quarter.
        resized: Tensor = self.upsample(self.project(self.refine(x)), size)
        return resized


class FusionDecoder(nn.Module):
    """The chain of four fusion blocks; `features`, `batch_norm` and `style` as in `FeatureFusion`."""

    def __init__(self, features: int, batch_norm: bool = False, style: str = "dpt"):
        super().__init__()
        self.blocks = nn.ModuleList(
            FeatureFusion(features, has_skip=not deepest, batch_norm=batch_norm, style=style)
            for deepest in (False, False, False, True)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Four `maps` (B, F, hᵢ, wᵢ), finest first -> the outputs of the last and of the penultimate block.

        The last, (B, F, 2h₀, 2w₀), has twice the resolution of the finest map, half that of the image; the
        penultimate is (B, F, h₀, w₀).
        """
        finest = maps[0].shape[-2:]
        sizes = [(2 * finest[0], 2 * finest[1]), *(level.shape[-2:] for level in maps[:-1])]
        x = penultimate = maps[-1]
        for level in reversed(range(len(maps))):
            penultimate = x
            skip = None if level == len(maps) - 1 else maps[level]
            x = self.blocks[level](x, skip, sizes[level])
        return x, penultimate
