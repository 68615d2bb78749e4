"""Figures A4 and A5 of the supplement: where some tokens of an image attend to, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

import dpt
from datasets_prep.inspect.contact_sheet import contact_sheet
from dpt.predict.attention import attention_maps
from dpt.predict.colours import colourise
from dpt.predict.depth import network_input

_HEIGHT = 192
_RED, _WHITE = (255, 0, 0), (255, 255, 255)


def attention_figure(
    model: dpt.DPT,
    image: NDArray[np.uint8],
    layers: Sequence[int],
    references: Sequence[tuple[float, float]],
    side: int | None = None,
    rule: str | None = None,
) -> NDArray[np.uint8]:
    """One row per reference token: the `image` with the token marked, then one attention map per layer.

    Both pictures are (H, W, 3) uint8 RGB. The `model` has a ViT backbone and is in evaluation mode; `layers`
    are counted from 1; `references` are fractions of height and width, (0, 0) the upper left corner. `side`
    and `rule` of the network's input are as in `transforms.network_size`; None for the model's own.

    Raises:
        ValueError: see `dpt.predict.attention.attention_maps`.
    """
    pixels = network_input(model, [image], side, rule)
    grid = [length // model.backbone.patch_size for length in pixels.shape[-2:]]
    tokens = [
        (min(int(row * grid[0]), grid[0] - 1), min(int(column * grid[1]), grid[1] - 1))
        for row, column in references
    ]
    maps = attention_maps(model, pixels, layers, tokens)[0].cpu().numpy()
    width = max(1, round(image.shape[1] * _HEIGHT / image.shape[0]))
    small = np.asarray(cv2.resize(image, (width, _HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
    rows, titles = [], []
    for number, token in enumerate(tokens):
        centre = [(index + 0.5) / count for index, count in zip(token, grid, strict=True)]
        marked, place = small.copy(), (int(centre[1] * width), int(centre[0] * _HEIGHT))
        for radius, colour in ((7, _WHITE), (5, _RED)):
            cv2.circle(marked, place, radius, colour, thickness=-1, lineType=cv2.LINE_AA)
        smooth = [
            cv2.resize(one, (width, _HEIGHT), interpolation=cv2.INTER_LINEAR) for one in maps[:, number]
        ]
        rows.append([marked, *(colourise(np.asarray(one, np.float32), "viridis") for one in smooth)])
        titles.append(
            f"attention of the token at row {centre[0]:.2f}, column {centre[1]:.2f}; "
            f"layers {', '.join(map(str, layers))}"
        )
    return contact_sheet(rows, titles, _HEIGHT)
