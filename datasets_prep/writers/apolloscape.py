"""Files in the layout of ApolloScape stereo; the format's facts are in `sources.apolloscape`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Pair, Writer, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_INVALID = 65535
_FACTOR = 200
_METRE_PIXELS = 0.36 * 2301.3


def apolloscape_map(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16 disparity of `scene` for the real cameras times 200, 65535 in the sky."""
    disparity = np.round(_FACTOR * _METRE_PIXELS / scene.depth)
    disparity = np.clip(disparity, 1, _INVALID - 1)
    return np.where(scene.sky, _INVALID, disparity).astype(np.uint16)


_IMAGE, _DEPTH = "{folder}/camera_5/{stem}_Camera_5.jpg", "{folder}/disparity/{stem}_Camera_5.png"
_PAIR = Pair(_IMAGE, encode_jpeg, _DEPTH, encode_png, apolloscape_map)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    stored = apolloscape_map(views[0])
    near = (stored > _FACTOR * _METRE_PIXELS / 15) & (stored != _INVALID)
    files = _PAIR.files(views[0])
    for name, mask in {"fg_mask": near, "bg_mask": ~near & (stored != _INVALID)}.items():
        path = _PAIR.target.replace("disparity", name)
        files[path] = encode_png(np.where(mask, _INVALID, 0).astype(np.uint16))
    # Every third frame is of the same minute as the one before.
    time = f"171206_{34 + index // 3:04d}{index:05d}"
    write_sample(root, f"stereo_train_{index % 3 + 1:03d}/{time}", files)


_TRAPS = Traps("stereo_train_009/180101_{number:09d}", _PAIR, (*UNUSABLE, "grey image"), empty=_INVALID)
WRITER = Writer(_write_views, _TRAPS, kinds=("street",))
