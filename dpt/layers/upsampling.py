"""Bilinear upsampling of feature maps, in float32 or in the precision of its input."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Upsampling(nn.Module):
    """Resizes bilinearly.

    On a GPU autocast has it done in float32, and then all sums with its output too, up to the next
    convolution: in the decoder most of the memory traffic. `as_given` keeps the precision of the input.

    Args:
        align_corners: as of `torch.nn.functional.interpolate`.
    """

    def __init__(self, align_corners: bool = True):
        super().__init__()
        self.align_corners = align_corners
        self.as_given = False

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """`x` (B, F, h, w) -> (B, F, *`size`), float32 under a GPU's autocast unless `as_given`."""
        autocast = torch.is_autocast_enabled(x.device.type) and not self.as_given
        with torch.autocast(x.device.type, enabled=autocast):
            return F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners)
