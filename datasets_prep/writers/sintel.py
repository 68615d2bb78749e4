"""Files in the layout of MPI Sintel; the format's facts are in `sources.sintel`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_sintel_depth
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_SKY_METRES = 1e10


def _depth(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres, very large in the sky."""
    return np.where(scene.sky, np.float32(_SKY_METRES), scene.depth)


_PAIR = Pair("training/final/{id}.png", encode_png, "training/depth/{id}.dpt", encode_sintel_depth, _depth)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    for number, scene in enumerate(views, start=1):
        files = _PAIR.files(scene)
        files[_PAIR.image.replace("final", "clean")] = files[_PAIR.image]
        write_sample(root, f"rendered_{index}/frame_{number:04d}", files)


_TRAPS = Traps("traps/frame_{number:04d}", _PAIR, (*UNUSABLE, "RGBA image"))
WRITER = Writer(_write_views, _TRAPS, views=VIEWS)
