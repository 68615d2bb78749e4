"""Compilation of a model by regions, so that its first step comes soon.

Compiled as a whole, each of a transformer's equal layers is compiled anew. Compiled one by one, they share
one program, which takes their weights as inputs.
"""

from typing import Any

from torch import nn

from dpt.model import DPT


def compile_regions(model: DPT, **options: Any) -> None:
    """Compile the backbone's layers and the decoder's three parts of `model`, in place.

    Args:
        model: a backbone without layers in a `ModuleList`, such as a ResNet, is one region.
        options: of `torch.compile`.
    """
    for region in [*repeated_layers(model.backbone), model.reassemble, model.fusion, model.head]:
        region.compile(**options)


def repeated_layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers of a `backbone` that are built alike, or the backbone itself where there are none."""
    lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    return [layer for layers in lists for layer in layers] or [backbone]
