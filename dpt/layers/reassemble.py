"""Reassemble: from tokens at one resolution to feature maps at four (section 3, equations 1 to 6)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dpt.layers.backbones import Tap

READOUTS = ("ignore", "add", "project")


class Readout(nn.Module):
    """Hand the readout token's content to the patch tokens: Read in equations 2 to 4.

    ``ignore`` drops the token, ``add`` adds it to every patch (for a distilled backbone: the mean of class
    and distillation token), ``project`` maps [patch, class token] back to C channels by a linear layer and a
    GELU.
    """

    def __init__(self, kind: str, channels: int, tokens: int):
        super().__init__()
        self.kind = kind
        self.tokens = tokens
        if kind == "project":
            self.project = nn.Linear(2 * channels, channels)

    def forward(self, tap: Tap) -> Tensor:
        """Features (B, C, h, w) and prefix (B, P, C) -> (B, C, h, w)."""
        features, prefix = tap
        if self.kind == "ignore" or prefix is None:
            return features
        if self.kind == "add":
            token = prefix[:, : self.tokens].mean(dim=1)
            return features + token[:, :, None, None]
        # The readout half of the linear layer is the same for all patches of an image: W [t; t0] = W1 t + W2
        # t0.
        patch_weight, token_weight = self.project.weight.chunk(2, dim=1)
        token = F.linear(prefix[:, 0], token_weight, self.project.bias)
        patches = F.linear(features.permute(0, 2, 3, 1), patch_weight)
        return F.gelu(patches + token[:, None, None]).permute(0, 3, 1, 2)


class ReassembleStage(nn.Module):
    """One token tap -> a feature map at `factor` times the resolution of the token grid.

    Read, Concatenate, then Resample: a 1×1 convolution to `out_channels` and a strided 3×3 convolution
    (factor 1/2) or a strided transposed one (factor 2, 4).
    """

    def __init__(self, readout: Readout, channels: int, out_channels: int, factor: float):
        super().__init__()
        self.readout = readout
        self.project = nn.Conv2d(channels, out_channels, kernel_size=1)
        self.resample: nn.Module
        if factor > 1:
            scale = int(factor)
            self.resample = nn.ConvTranspose2d(out_channels, out_channels, kernel_size=scale, stride=scale)
        elif factor < 1:
            self.resample = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        else:
            self.resample = nn.Identity()

    def forward(self, tap: Tap) -> Tensor:
        """(B, C, h, w) and its prefix -> (B, out_channels, factor·h, factor·w)."""
        return self.resample(self.project(self.readout(tap)))


class ConvolutionalStage(nn.Module):
    """A convolutional tap already is a feature map at its resolution; nothing to reassemble."""

    def forward(self, tap: Tap) -> Tensor:
        """Return the (B, C, h, w) map as it is."""
        return tap.features


class Reassemble(nn.Module):
    """Four taps -> four maps of `features` channels at 4, 2, 1 and 1/2 times the token resolution.

    With patches of 16 pixels these are strides 4, 8, 16 and 32 of the image.
    """

    def __init__(
        self,
        tap_channels: Sequence[int],
        convolutional: Sequence[bool],
        channels: Sequence[int],
        features: int,
        readout: str,
        readout_tokens: int,
    ):
        super().__init__()
        stages: list[nn.Module] = []
        for tapped, is_map, out, factor in zip(
            tap_channels, convolutional, channels, (4, 2, 1, 0.5), strict=True
        ):
            if is_map:
                stages.append(ConvolutionalStage())
            else:
                stages.append(ReassembleStage(Readout(readout, tapped, readout_tokens), tapped, out, factor))
        self.stages = nn.ModuleList(stages)
        self.adapt = nn.ModuleList(
            nn.Conv2d(out, features, kernel_size=3, padding=1, bias=False) for out in channels
        )

    def forward(self, taps: Sequence[Tap]) -> list[Tensor]:
        """Taps in network order -> maps, finest first."""
        return [adapt(stage(tap)) for adapt, stage, tap in zip(self.adapt, self.stages, taps, strict=True)]
