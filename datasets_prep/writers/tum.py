"""Files in the layouts of TUM RGB-D; the formats' facts are in `sources.tum`.

Every second scene is written as the package of chosen frames, the others as sequences.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.hdf5 import encode_hdf5_arrays
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, fixed_point, write_file, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_START_MICROSECONDS = 1_341_846_313_000_000
_FRAME_MICROSECONDS = 33_333
_DEPTH_LATER_MICROSECONDS = 4_321
_FARTHEST_METRES = 13


def _depth(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16 metres times 5,000, 0 beyond 13 m."""
    return fixed_point(scene, 5000, _FARTHEST_METRES)


_PAIR = Pair("{folder}/rgb/{stem}.png", encode_png, "{folder}/depth/{stem}.png", encode_png, _depth)


def _time(microseconds: int) -> str:
    return f"{microseconds // 10**6}.{microseconds % 10**6:06d}"


def _write_frame(root: Path, sequence: str, number: int, image: bytes, depth: bytes | None) -> str:
    """Write one frame, whose depth is a little later than its image; returns its sample id."""
    now = _START_MICROSECONDS + number * _FRAME_MICROSECONDS
    sample_id, later = f"{sequence}/{_time(now)}", _time(now + _DEPTH_LATER_MICROSECONDS)
    write_sample(root, sample_id, {_PAIR.image: image, _PAIR.target.replace("{stem}", later): depth})
    return sample_id


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    for number, scene in enumerate(views):
        if index % 2 == 0:
            image, depth = encode_png(scene.image), encode_png(_depth(scene))
            _write_frame(root, f"rgbd_dataset_freiburg3_rendered_{index}", number, image, depth)
            continue
        # Frames of the package: images as floats, depth in metres, both in one file.
        metres = np.where(scene.depth < _FARTHEST_METRES, scene.depth, 0).astype(np.float32)
        arrays = {"gt/img_1": (scene.image / 255).astype(np.float32), "gt/gt_depth": metres}
        write_file(root / "tum_hdf5" / f"rendered_{index}_{number:04d}.h5", encode_hdf5_arrays(arrays))


_TRAPS = Traps("rgbd_dataset_freiburg1_traps", _PAIR, (*UNUSABLE, "RGBA image"))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    pairs = _TRAPS.pairs(scene).items()
    return {_write_frame(root, _TRAPS.sample_id, n, *pair): what for n, (what, pair) in enumerate(pairs)}


WRITER = Writer(_write_views, _write_traps, kinds=("room",), views=VIEWS)
