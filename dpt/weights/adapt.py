"""A trained model made fit for other classes: what fits is kept, the rest is drawn anew."""

import dataclasses
from collections.abc import Sequence

import torch

from dpt.config import ModelConfig
from dpt.model import DPT


def with_classes(model: DPT, class_names: Sequence[str]) -> DPT:
    """A segmentation model of these classes that begins as another model.

    The backbone, the decoder and, of a segmentation model, all but the last layer of both heads keep their
    weights; what they do not have is drawn from PyTorch's generator: batch normalisation and heads of a
    model of depth, the last layers where the classes are others. As in the paper (section 4.2) the decoder
    is normalised, and there is an auxiliary head.

    Returns:
        the model itself if it is of these classes already, else a new one on the same device.

    Raises:
        ValueError: see `require_adaptable`.
    """
    names = tuple(class_names)
    config = model.config
    if config.task == "segmentation" and config.class_names == names:
        return model
    require_adaptable(config)
    new = dataclasses.replace(
        config,
        task="segmentation",
        classes=len(names),
        class_names=names,
        auxiliary=True,
        batch_norm=True,
        scale=1.0,
        shift=0.0,
        invert=False,
        max_depth=None,
    )
    device = next(model.parameters()).device
    with torch.device(device):
        adapted = DPT(new)
    own, given = adapted.state_dict(), model.state_dict()
    same_head = config.task == "segmentation"
    kept = {
        key: tensor
        for key, tensor in given.items()
        if key in own and tensor.shape == own[key].shape and (same_head or not key.startswith("head."))
    }
    if same_head and config.class_names != names:
        kept = {key: tensor for key, tensor in kept.items() if not key.startswith(_LAST_LAYERS)}
    adapted.load_state_dict(own | kept)
    return adapted.train(model.training)


_LAST_LAYERS = ("head.conv2.", "auxiliary.conv2.")


def require_adaptable(config: ModelConfig) -> None:
    """Refuse a model that `with_classes` cannot adapt.

    Raises:
        ValueError: if the decoder is not the paper's.
    """
    if config.fusion != "dpt":
        raise ValueError(f"models with the decoder {config.fusion!r} cannot be made to segment")
