"""Files in the layout of ETH3D; the format's facts are in `sources.eth3d`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_IMAGE = "{folder}/images/dslr_images/{stem}.JPG"
_DEPTH = "{folder}/ground_truth_depth/dslr_images/{stem}.JPG"


def eth3d_map(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres of `scene` at two thirds of the pixels, as a laser hits them; else infinity."""
    rows, columns = np.indices(scene.depth.shape)
    return np.where((rows + 2 * columns) % 3 == 0, np.float32(np.inf), scene.depth)


_PAIR = Pair(_IMAGE, encode_jpeg, _DEPTH, lambda values: values.astype("<f4").tobytes(), eth3d_map)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    for number, scene in enumerate(views):
        write_sample(root, f"rendered_{index}/DSC_{number:04d}", _PAIR.files(scene))


_DEFECTS = tuple(what for what in UNUSABLE if what != "mismatched size")
_TRAPS = Traps("traps/DSC_{number:04d}", _PAIR, (*_DEFECTS, "grey image"), empty=np.inf)
WRITER = Writer(_write_views, _TRAPS, views=VIEWS)
