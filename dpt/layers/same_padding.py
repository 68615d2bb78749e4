"""The hybrid's ResNet: TensorFlow's "same" padding as a constant, and which weight standardisation.

The hybrid's ResNet was trained with it. timm computes the padding from the size of every input; under dynamic
shapes an exporter then reasons about rounding in symbols and does not finish within minutes. But all strided
layers see even sizes here, because images are multiples of 32, and then the padding is constant: n inputs
give n/2 outputs, whose kernels of k pixels cover 2 (n/2 − 1) + k = n + (k − 2) pixels, so k − 2 are padded,
the odd one after the image. For k = 3 that is none before and one after, where PyTorch pads one on each side.

Weights w of mean μ and standard deviation σ are standardised as (w − μ) / √(σ² + 1e-8) in timm today. timm
0.4.5, which the authors of DPT pinned, had (w − μ) / (σ + 1e-5): outputs of the published hybrids differ by
3e-4.
"""

import torch
import torch.nn.functional as F
from timm.layers import StdConv2dSame
from torch import Tensor, nn

STANDARDISATIONS = ("timm", "released")
_RELEASED_EPS = 1e-5


class EvenStdConv2d(StdConv2dSame):
    """A weight-standardised convolution for even sizes, sharing the weights of `conv`.

    Its stride is 1 or 2. `standardisation` is one of `STANDARDISATIONS`.
    """

    def __init__(self, conv: StdConv2dSame, standardisation: str):
        size, stride = (conv.in_channels, conv.out_channels, conv.kernel_size[0]), conv.stride[0]
        super().__init__(*size, stride=stride, bias=conv.bias is not None, eps=conv.eps)
        self.weight, self.bias = conv.weight, conv.bias
        self.same_pad = False
        self.pad = _padding(conv.kernel_size[0]) if stride == 2 else None
        self.released = standardisation == "released"

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, C, h, w) -> (B, C', h / stride, w / stride)."""
        if self.pad:
            x = F.pad(x, self.pad)
        if not self.released:
            return super().forward(x)
        std, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / (std + _RELEASED_EPS)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class EvenMaxPool2d(nn.Module):
    """Maximum over 3×3 pixels with stride 2 for even sizes."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, C, 2h, 2w) -> (B, C, h, w)."""
        return F.max_pool2d(F.pad(x, _padding(3), value=-torch.inf), kernel_size=3, stride=2)


def pad_for_even_sizes(network: nn.Module, standardisation: str) -> None:
    """Replace the strided layers of timm's "same" ResNet `network` in place; parameters keep their names.

    With the `standardisation` ``"released"`` of `STANDARDISATIONS`, all convolutions.
    """
    for name, module in list(network.named_modules()):
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, StdConv2dSame) and (module.stride == (2, 2) or standardisation == "released"):
            setattr(network.get_submodule(parent), leaf, EvenStdConv2d(module, standardisation))
        elif type(module).__name__ == "MaxPool2dSame":
            setattr(network.get_submodule(parent), leaf, EvenMaxPool2d())


def _padding(kernel: int) -> tuple[int, int, int, int]:
    total = max(kernel - 2, 0)
    return (total // 2, total - total // 2) * 2
