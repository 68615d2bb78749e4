"""Blocks of the report pages: key figures, grids of pictures, charts side by side, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import cv2
import numpy as np

from datasets_prep.inspect.html import image
from datasets_prep.inspect.row_pictures import Picture
from pipelines.report.charts import Chart

PICTURE_WIDTH = 360
"""Pictures of a grid are at most so many pixels wide."""


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Key figures: what it is, the figure, and a smaller line below."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in figures
    )
    return f'<dl class="tiles">{items}</dl>'


def picture_grid(pictures: Iterable[tuple[str, Picture]]) -> str:
    """Captioned (H, W, 3) uint8 RGB pictures, side by side as far as there is room."""
    items = "".join(
        f"<figure>{image(_shrunk(picture), caption)}<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in pictures
    )
    return f'<div class="pictures">{items}</div>'


def wide_picture(picture: Picture, caption: str) -> str:
    """One captioned picture over the whole width."""
    text = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure class="picture">{image(picture, caption)}{text}</figure>'


def charts(found: Iterable[Chart]) -> str:
    """Charts side by side as far as there is room; empty without any."""
    drawn = "\n".join(chart.html() for chart in found)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def notes(lines: Sequence[str], kind: str = "note") -> str:
    """A list of remarks, or of `problems`; empty without any."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if lines else ""


def _shrunk(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    if width <= PICTURE_WIDTH:
        return picture
    size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
