"""Blocks of report pages: key figures, grids of pictures, charts side by side, notes; and a whole page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import cv2
import numpy as np

from datasets_prep.inspect.html import document, image, section
from datasets_prep.inspect.row_pictures import Picture
from pipelines.report.charts import Chart

PICTURE_WIDTH = 360
"""Maximum width of the pictures of a grid, in pixels."""


def report_page(tab: str, top: str, figures: str, sections: Mapping[str, tuple[str, str]], foot: str) -> str:
    """A whole HTML page: `sections` are anchor → title, plain text, and HTML.

    `tab` is the title of the browser's tab, plain text. `top` is HTML of `datasets_prep.inspect.html.header`,
    `figures` of `tiles`, `foot` that of the footer's paragraph.
    """
    body = "\n".join(section(anchor, title, html) for anchor, (title, html) in sections.items())
    return document(tab, f"{top}\n{figures}\n<main>{body}</main>\n<footer><p>{foot}</p></footer>")


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Key `figures`: name, value, and a smaller line below."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in figures
    )
    return f'<dl class="tiles">{items}</dl>'


def picture_grid(pictures: Iterable[tuple[str, Picture]]) -> str:
    """Captioned (H, W, 3) uint8 RGB `pictures`, side by side where they fit."""
    items = ""
    for caption, picture in pictures:
        height, width = picture.shape[:2]
        if width > PICTURE_WIDTH:
            size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        items += f"<figure>{image(picture, caption)}<figcaption>{escape(caption)}</figcaption></figure>"
    return f'<div class="pictures">{items}</div>'


def wide_picture(picture: Picture, caption: str) -> str:
    """One (H, W, 3) uint8 RGB `picture` over the whole width, with a `caption`."""
    text = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure class="picture">{image(picture, caption)}{text}</figure>'


def charts(shown: Iterable[Chart]) -> str:
    """Charts side by side where they fit; "" if none are `shown`."""
    drawn = "\n".join(chart.html() for chart in shown)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def notes(lines: Sequence[str], kind: str = "note") -> str:
    """A list of `lines`, of the `kind` "note" or "problems"; "" without lines."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if lines else ""
