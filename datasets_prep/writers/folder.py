"""Files in the layout of a user's own folder, described in `sources.folder`.

Depth is stored in every format that the source reads, one after the other, in units of half a metre.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_exr, encode_npy, encode_pfm
from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, write_file, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps, half, write_traps

UNIT_METRES = 0.5

_INVALID = 0.0
_SKY = 60000.0
_IMAGE = "images/{id}.{suffix}"
_DEPTH = "depth/{id}.{suffix}"
_DESCRIPTION = f"""\
name: rendered_folder
quantity: depth
metric: true
scale: {UNIT_METRES}
invalid: [{_INVALID:g}]
sky: {_SKY:g}
"""


def folder_map(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 depth of `scene` in units, rounded so that every format keeps it; a hole in a corner."""
    stored = np.round(scene.depth / UNIT_METRES)
    stored[scene.sky] = _SKY
    stored[:4, :4] = _INVALID
    return stored.astype(np.float32)


ENCODERS: dict[str, Callable[[NDArray[np.float32]], bytes]] = {
    "png": lambda values: encode_png(values.astype(np.uint16)),
    "npy": encode_npy,
    "exr": lambda values: encode_exr({"Z": values}),
    "pfm": encode_pfm,
    "tif": lambda values: cv2.imencode(".tif", values)[1].tobytes(),
}
"""Suffix of a map → encoder of (H, W) float32 values."""


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    for number, scene in enumerate(views):
        depth = list(ENCODERS.values())[number % len(ENCODERS)](folder_map(scene))
        name = f"place {index}/{number:04d}" if index % 2 else f"{index:03d}{number:04d}"
        write_sample(root, name, {_IMAGE: encode_jpeg(scene.image), _DEPTH: depth})


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The description, without which no folder is accepted; no splits."""
    write_file(root / "dataset.yaml", _DESCRIPTION.encode())


_PAIR = Pair(_IMAGE, encode_jpeg, _DEPTH, encode_npy, folder_map)
_TRAPS = Traps("traps/{what}", _PAIR, (*UNUSABLE, "grey image", "RGBA image"))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    """The maps that cannot be read are TIFF and NPY, the others PNG."""
    values = folder_map(scene)
    broken = {"truncated depth": half(ENCODERS["tif"](values))}
    good = {"truncated image", "grey image", "RGBA image"}
    contents = {
        what: (image, ENCODERS["png"](values) if what in good else broken.get(what, depth))
        for what, (image, depth) in _TRAPS.pairs(scene).items()
    }
    return write_traps(root, _TRAPS.sample_id, (_IMAGE, _DEPTH), contents)


WRITER = Writer(_write_views, _write_traps, _write_lists, views=VIEWS)
