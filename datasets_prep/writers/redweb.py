"""Files in the layout of ReDWeb; the format's facts are in `sources.redweb`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Pair, Writer, inverse_depth, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_IMAGE = "Imgs/{id}.jpg"
_DEPTH = "RDs/{id}.png"
_SKY = 255


def _relative_depth(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8 map as ReDWeb stores it: 0 nearest, 254 farthest, 255 sky."""
    stored = np.round(254 * (1 - inverse_depth(scene))).astype(np.uint8)
    stored[scene.sky] = _SKY
    return stored


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    stored = _relative_depth(views[0])
    if index % 4 == 3:  # a map of another size than its image
        stored = stored[::2, ::2]
    if index % 5 == 4:  # one channel stored three times
        stored = np.dstack([stored] * 3)
    write_sample(root, f"{index:06d}", {_IMAGE: encode_jpeg(views[0].image), _DEPTH: encode_png(stored)})


# The last is a PNG under the name .jpg, as in some downloads.
_DEFECTS = tuple(what for what in UNUSABLE if what != "mismatched size")
_PAIR = Pair(_IMAGE, encode_jpeg, _DEPTH, encode_png, _relative_depth)
_TRAPS = Traps("{what}", _PAIR, (*_DEFECTS, "grey image", "RGBA image"), empty=_SKY)
_KINDS = ("countryside", "facade", "facade", "room", "things on a floor")
WRITER = Writer(_write_views, _TRAPS, kinds=_KINDS, portraits=True)
