"""Reassemble: from tokens at one resolution to feature maps at four (section 3, equations 1 to 6)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dpt.layers.backbones import Tap

READOUTS = ("ignore", "add", "project")


class Readout(nn.Module):
    """Pass the readout token's content to the patch tokens: Read in equations 2 to 4.

    Args:
        kind: ``"ignore"`` drops the token, ``"add"`` adds it to every patch (for a distilled backbone: the
            mean of class and distillation token), ``"project"`` maps [patch, class token] back to C channels
            by a linear layer and a GELU.
        channels: C.
        tokens: number of readout tokens, at the beginning of the prefix.
    """

    def __init__(self, kind: str, channels: int, tokens: int):
        super().__init__()
        self.kind = kind
        self.tokens = tokens
        if kind == "project":
            self.project = nn.Linear(2 * channels, channels)

    def forward(self, tap: Tap) -> Tensor:
        """`tap` with features (B, C, h, w) and prefix (B, P, C) -> (B, C, h, w)."""
        features, prefix = tap
        if self.kind == "ignore" or prefix is None:
            return features
        if self.kind == "add":
            token = prefix[:, : self.tokens].mean(dim=1)
            return features + token[:, :, None, None]
        # W [t; t0] = W1 t + W2 t0: the second half is the same for all patches of an image, so computed once.
        patch_weight, token_weight = self.project.weight.chunk(2, dim=1)
        token = F.linear(prefix[:, 0], token_weight, self.project.bias)
        patches = F.linear(features.permute(0, 2, 3, 1), patch_weight)
        return F.gelu(patches + token[:, None, None]).permute(0, 3, 1, 2)


class ReassembleStage(nn.Module):
    """One token tap -> a feature map at `factor` times the resolution of the token grid.

    Read, Concatenate, then Resample (equations 1, 5 and 6): a 1×1 convolution to `out_channels` and a strided
    3×3 convolution (factor 1/2) or a strided transposed one (factor 2, 4). `channels` are those of the tap,
    `readout` maps it to (B, channels, h, w).
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
        """`tap` with features (B, C, h, w) -> (B, out_channels, factor · h, factor · w)."""
        return self.resample(self.project(self.readout(tap)))


class ConvolutionalStage(nn.Module):
    """Identity: a convolutional tap already is a feature map at its resolution."""

    def forward(self, tap: Tap) -> Tensor:
        """`tap` with features (B, C, h, w) -> those features."""
        return tap.features


class Reassemble(nn.Module):
    """Four taps -> four maps of `features` channels at 4, 2, 1 and 1/2 times the token resolution.

    With patches of 16 pixels these are strides 4, 8, 16 and 32 of the image.

    Args:
        tap_channels: of the four taps.
        convolutional: whether each tap is a stage of a convolutional network.
        channels: of the four maps before their last convolution, to `features`.
        features: channels of the decoder, D̂.
        readout: kind of `Readout`.
        readout_tokens: number of the backbone's readout tokens.
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
        settings = zip(tap_channels, convolutional, channels, (4, 2, 1, 0.5), strict=True)
        for tapped, is_map, out, factor in settings:
            if is_map:
                stages.append(ConvolutionalStage())
            else:
                stages.append(ReassembleStage(Readout(readout, tapped, readout_tokens), tapped, out, factor))
        self.stages = nn.ModuleList(stages)
        self.adapt = nn.ModuleList(
            nn.Conv2d(out, features, kernel_size=3, padding=1, bias=False) for out in channels
        )

    def forward(self, taps: Sequence[Tap]) -> list[Tensor]:
        """Four `taps` in network order -> four maps (B, features, hᵢ, wᵢ), finest first."""
        return [adapt(stage(tap)) for adapt, stage, tap in zip(self.adapt, self.stages, taps, strict=True)]
