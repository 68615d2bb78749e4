"""Arithmetic on weights that inference need not repeat, done once: a network's function stays the same.

Batch norms go into the convolution before them, LayerScale into the linear layer before it, and weights are
standardised once instead of in every forward pass. All changes are in place, of a network in evaluation mode.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import (
    BatchNormAct2d,
    Conv2dSame,
    LayerScale,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from timm.models.vision_transformer import Block
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

_STANDARDISED = (StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame)


@torch.no_grad()
def fold(network: nn.Module) -> None:
    """Fold all of a `network`, in its own precision; sums and products are of float64."""
    for name, module in list(network.named_modules()):
        if isinstance(module, _STANDARDISED):
            network.set_submodule(name, _standardised(module))
    for module in list(network.modules()):
        if any(map(_is_norm, module.children())):
            for convolution, norm in _pairs(module):
                _fold_batch_norm(module, convolution, norm)
        if isinstance(module, Block):
            _fold_layer_scale(module)


# ---- standardised weights


class _SeenWeight(TorchFunctionMode):
    """Context that keeps the `weight` of the last convolution, and computes none."""

    weight: Tensor

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.conv2d:
            _, self.weight, *_ = args
            return args[0]
        return function(*args, **(kwargs or {}))


def _standardised(module: Any) -> nn.Module:
    """A plain convolution with the weights that the `module` convolves with, to the bit."""
    with _SeenWeight() as seen:
        module(module.weight.new_zeros(1, module.in_channels, *module.kernel_size))
    kind = Conv2dSame if getattr(module, "same_pad", False) else nn.Conv2d
    size = (module.in_channels, module.out_channels, module.kernel_size)
    places = (module.stride, module.padding, module.dilation, module.groups)
    plain = kind(*size, *places, bias=module.bias is not None, device="meta")
    plain.weight, plain.bias = nn.Parameter(seen.weight), module.bias
    plain.eval()
    padding = getattr(module, "pad", None)
    return nn.Sequential(nn.ZeroPad2d(padding), plain) if padding else plain


# ---- batch norms


class _Tracer(fx.Tracer):
    """Takes convolutions and batch norms of any library as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names below `module` of convolutions and the batch norms that alone see their output.

    None of a module whose forward pass depends on values, which cannot be traced: it keeps its norms.
    """
    try:
        graph = _Tracer().trace(module)
    except Exception:  # whatever the code of a network raises for a symbol instead of a tensor
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    called = [str(node.target) for node in calls]
    for node, norm in zip(calls, called, strict=True):
        before: Any = node.args[0] if node.args else None
        if before not in calls or len(before.users) != 1:
            continue
        convolution = str(before.target)
        kinds = isinstance(module.get_submodule(convolution), nn.Conv2d), _is_norm(module.get_submodule(norm))
        if all(kinds) and called.count(convolution) == called.count(norm) == 1:
            yield convolution, norm


def _is_norm(module: nn.Module) -> bool:
    """Whether `module` is a batch norm with statistics of training."""
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _fold_batch_norm(module: nn.Module, convolution: str, norm: str) -> None:
    """Scale and shift the output of a `convolution` of the `module` as its `norm` does, and drop the norm."""
    before, after = module.get_submodule(convolution), module.get_submodule(norm)
    assert isinstance(before, nn.Conv2d)
    assert isinstance(after, nn.BatchNorm2d)
    statistics = (after.running_mean, after.running_var, after.eps, after.weight, after.bias)
    parts: list[Any] = [before.weight, before.bias, *statistics]
    exact: list[Any] = [part.double() if isinstance(part, Tensor) else part for part in parts]
    folded = fuse_conv_bn_weights(*exact)
    before.weight, before.bias = (nn.Parameter(part.to(before.weight.dtype)) for part in folded)
    rest = nn.Sequential(after.drop, after.act) if isinstance(after, BatchNormAct2d) else nn.Identity()
    module.set_submodule(norm, rest.eval())


# ---- LayerScale


def _fold_layer_scale(block: Any) -> None:
    """γ (W x + b) = (γ W) x + γ b, of both residual branches of a transformer's `block`."""
    for name, linear in (("ls1", block.attn.proj), ("ls2", getattr(block.mlp, "fc2", None))):
        scale = getattr(block, name)
        if not isinstance(scale, LayerScale) or not isinstance(linear, nn.Linear):
            continue
        factors = scale.gamma.double()
        linear.weight = nn.Parameter((linear.weight.double() * factors[:, None]).to(linear.weight.dtype))
        if linear.bias is not None:
            linear.bias = nn.Parameter((linear.bias.double() * factors).to(linear.bias.dtype))
        setattr(block, name, nn.Identity())
