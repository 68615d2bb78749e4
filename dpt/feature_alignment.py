"""Alignment of a model's features with those of a frozen encoder, to keep what that one knows of things.

L. Yang et al., Depth Anything (CVPR 2024), section 3.3. What is compared are the last features of both
encoders. There is no projection between them (the paper's, from random weights, made its alignment loss
dominate), so both have the same number of channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpt.alignment import masked
from dpt.config import ModelConfig
from dpt.layers.backbones import create_backbone
from dpt.predict.transforms import normalise
from dpt.zoo import resolve_config


class FeatureAlignment(nn.Module):
    """The loss of features that should be like those of a frozen encoder.

    Args:
        encoder: a timm model with its weight tag.
        model: config of the model to train, whose treatment of positions and of the final norm is also that
            of the encoder.
        margin: α, the cosine from which on features are alike enough.
        pretrained: fetch the weights that timm lists for the tag.

    Attributes:
        channels: number of channels of the features.

    Raises:
        ValueError: if timm does not know the encoder, or it is not a backbone.
    """

    def __init__(self, encoder: str, model: ModelConfig, margin: float = 0.85, pretrained: bool = True):
        super().__init__()
        own = resolve_config("dpt_base", backbone=encoder)
        self._mean, self._std, self._margin = own.mean, own.std, margin
        self._encoder = create_backbone(
            encoder,
            own.taps,
            pretrained=pretrained,
            interpolation=model.position_interpolation,
            final_norm=model.final_norm,
        )
        self.channels: int = self._encoder.channels[-1]
        self.requires_grad_(False).eval()

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """Mean over pixels of 1 − cos(f, f'), where pixels with a cosine above α count as 0 (equation 9).

        A model need not become the frozen encoder, in which parts of a thing are alike although their depths
        differ.

        Args:
            features: (B, C, h, w), the last ones of the encoder that is trained.
            images: (B, H, W, 3) uint8 RGB.

        Returns:
            (B,) losses in float32, or in float64 if the features are.
        """
        wide = torch.float64 if features.dtype == torch.float64 else torch.float32
        frozen = self.frozen(images, (features.shape[2], features.shape[3]))
        cosine = F.cosine_similarity(features.to(wide), frozen.to(wide), dim=1)
        return masked(1 - cosine, cosine <= self._margin).mean(dim=(1, 2))

    @torch.no_grad()
    def frozen(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The encoder's features (B, C, h, w) of `images`, (B, H, W, 3) uint8, on a `grid` of (h, w).

        Images are resized to the nearest multiples of the encoder's stride, and its features to the grid,
        both bilinearly: 384 × 384 pixels and patches of 14 → 378 × 378 → 27 × 27 → 24 × 24 features.
        """
        dtype, stride = next(self.parameters()).dtype, self._encoder.strides[-1]
        size = [max(1, round(side / stride)) * stride for side in images.shape[1:3]]
        pixels = normalise(images, self._mean, self._std).to(dtype)
        taps = self._encoder(F.interpolate(pixels, size, mode="bilinear"))
        return F.interpolate(taps[-1].features, grid, mode="bilinear")
