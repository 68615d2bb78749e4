"""What a model of any task does with an image that can be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import dpt
from datasets_prep.manifest import PreparedDataset
from dpt.predict.attention import check_layers
from pipelines.config import EvaluateConfig
from pipelines.prediction.attention_figure import attention_figure

REFERENCES = ((0.25, 0.25), (0.75, 0.75))
"""Tokens whose attention is drawn, in shares of height and width."""

_STEPS = (1.0, 7 / 6, 4 / 3, 3 / 2, 5 / 3)
"""Sides of Figure 4, 384 to 640 pixels, in those of training."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shown:
    """A prediction to look at: its name, metrics, and pictures (H, W, 3) uint8 RGB by what they show."""

    name: str
    metrics: dict[str, float]
    pictures: dict[str, Picture]


def split_to_show(dataset: PreparedDataset) -> str:
    """The validation split, or else the last one."""
    splits = dataset.manifest.samples
    usual = EvaluateConfig().split
    return usual if usual in splits else list(splits)[-1]


def attention_of(network: dpt.DPT, image: Picture) -> Picture | None:
    """Figures A4 and A5: where tokens attend to in the tapped layers; None of a backbone without tokens."""
    try:
        layers = check_layers(network, ()).layers
    except ValueError:
        return None
    return attention_figure(network, image, layers, REFERENCES)


def sides_of_figure_4(network: dpt.DPT) -> list[int]:
    """Sides of the network's input in pixels, from that of training on."""
    divisor = network.size_divisor
    return sorted({round(network.config.image_size * step / divisor) * divisor for step in _STEPS})
