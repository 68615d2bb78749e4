"""Transfer to other classes: weights that fit are kept, the others are initialised at random."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from dpt.config import ModelConfig
from dpt.model import DPT


def with_classes(model: DPT, class_names: Sequence[str]) -> DPT:
    """A segmentation model of the classes `class_names` that is initialised from `model`.

    The backbone, the decoder and, from a segmentation model, all but the last layer of both heads keep their
    weights. The others are initialised by PyTorch's generator: batch normalisation and heads from a depth
    model, the last layers if the classes differ. As in the paper (section 4.2) the decoder has batch
    normalisation, and there is an auxiliary head. Returns the model itself if it already has these classes,
    else a new one on the same device. Raises ValueError, see `require_adaptable`.
    """
    names = tuple(class_names)
    config = model.config
    if config.task == "segmentation" and config.class_names == names:
        return model
    require_adaptable(config)
    not_metric: dict[str, Any] = {"scale": 1.0, "shift": 0.0, "invert": False, "max_depth": None}
    new = dataclasses.replace(
        config, task="segmentation", classes=len(names), class_names=names, **not_metric
    )
    new = dataclasses.replace(new, auxiliary=True, batch_norm=True)
    device = next(model.parameters()).device
    with torch.device(device):
        adapted = DPT(new)
    own = adapted.state_dict()
    redrawn = ("head.conv2.", "auxiliary.conv2.") if config.task == "segmentation" else ("head.",)
    for key, tensor in model.state_dict().items():
        if key in own and tensor.shape == own[key].shape and not key.startswith(redrawn):
            own[key] = tensor
    adapted.load_state_dict(own)
    return adapted.train(model.training)


def require_adaptable(config: ModelConfig) -> None:
    """Check that `with_classes` can adapt a model with this `config`.

    Raises ValueError if the decoder is not the paper's.
    """
    if config.fusion != "dpt":
        raise ValueError(f"models with the decoder {config.fusion!r} cannot be made to segment")
