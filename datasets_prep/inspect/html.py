"""Self-contained HTML pages: style, script and pictures are part of the file, so it can be sent and archived.

All pages share this style: those of `dpt inspect`, and the reports of sweeps and models. It follows the
reader's colour scheme, fits small screens, and loads nothing.
"""

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path

from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.inspect.row_pictures import Picture
from datasets_prep.storage.writing import writing_file

JPEG_QUALITY = 80
_STYLE, _SCRIPT = (Path(__file__).with_name(name) for name in ("html.css", "html.js"))


def document(title: str, body: str, style: str = "") -> str:
    """A whole HTML document: the HTML `body`, plain `title` of the browser's tab, additional CSS `style`."""
    # Only if there is a table to sort: a page that shows data of strangers runs no script.
    script = f"<script>{_SCRIPT.read_text('utf-8')}</script>" if 'class="sortable"' in body else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE.read_text('utf-8')}{style}</style></head>\n"
        f"<body>\n{body}\n{script}</body></html>\n"
    )


def header(kicker: str, title: str, lead: str = "", links: Mapping[str, str] | None = None) -> str:
    """The top of a page.

    `kicker` (the kind of page) and `title` are plain text, `lead` is a line of HTML below them; `links` maps
    anchors of sections to the texts of links.
    """
    items = "".join(f'<a href="#{escape(to)}">{escape(text)}</a>' for to, text in (links or {}).items())
    nav = f'<nav aria-label="Sections">{items}</nav>' if items else ""
    sub = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1>{sub}{nav}</header>'


def section(anchor: str, title: str, body: str) -> str:
    """The HTML `body` as a section with the id `anchor` and the plain text `title`."""
    return f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>\n{body}</section>'


def image(picture: Picture, description: str) -> str:
    """An <img> that contains the (H, W, 3) uint8 RGB `picture` as JPEG, with `description` as alternative."""
    data = base64.b64encode(encode_jpeg(picture, JPEG_QUALITY)).decode("ascii")
    height, width = picture.shape[:2]
    size = f'width="{width}" height="{height}"'
    return f'<img alt="{escape(description)}" {size} src="data:image/jpeg;base64,{data}"/>'


def write_document(path: Path, text: str) -> Path:
    """Write the page `text`, whole or not at all; returns its `path`."""
    with writing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
