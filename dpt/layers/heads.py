"""Output heads: inverse depth and segmentation (supplement A, Figures A1b and A1c)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpt.layers.upsampling import Upsampling


class DepthHead(nn.Module):
    """Three convolutions, with the upsampling to image size after the first (Figure A1b).

    Args:
        features: channels of the input, F.
        hidden: channels of the last hidden layer, 32 in the paper.
        align_corners: of the upsampling; off in MiDaS v2.1.
        max_depth: None ends in a ReLU, so the output is non-negative; else a sigmoid bounds it to
            (0, max_depth) metres (the metric models of Depth Anything).
    """

    def __init__(
        self, features: int, hidden: int = 32, align_corners: bool = True, max_depth: float | None = None
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features // 2, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(features // 2, hidden, kernel_size=3, padding=1)
        self.conv3 = nn.Conv2d(hidden, 1, kernel_size=1)
        self.upsample = Upsampling(align_corners)
        self.max_depth = max_depth
        # Random features vary little; without a positive start the final ReLU may cut off all pixels of all
        # images, and a network that outputs zero everywhere has no gradient to leave that state.
        nn.init.constant_(self.conv3.get_parameter("bias"), 0.5)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Features `x` (B, F, h, w) -> (B, *`size`) float32."""
        x = F.relu(self.conv2(self.upsample(self.conv1(x), size)))
        # bfloat16 has 128 levels per factor of two, visible steps in depth maps: the last layer is float32.
        with torch.autocast(x.device.type, enabled=False):
            x = self.conv3(x.to(self.conv3.weight.dtype)).squeeze(1).float()
        return F.relu(x) if self.max_depth is None else self.max_depth * torch.sigmoid(x)


class SegmentationHead(nn.Module):
    """Predict the logits of the classes at the resolution of the features, then upsample (Figure A1c).

    `features` and `classes` are the numbers of input and output channels, `dropout` the probability of
    dropping a feature before the last layer.
    """

    def __init__(self, features: int, classes: int, dropout: float = 0.1):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(features)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(features, classes, kernel_size=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Features `x` (B, F, h, w) -> (B, classes, *`size`) float32 logits."""
        x = self.conv2(self.dropout(F.relu(self.norm(self.conv1(x)))))
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True).float()
