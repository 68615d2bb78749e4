"""Files in the layout of HRWSI; the format's facts are in `sources.hrwsi`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Writer, inverse_depth, visible_from_right, write_sample
from datasets_prep.writers.traps import grey_jpeg, half, write_traps

_VAL_EVERY = 8
_BASELINE_METRES = 0.1
_FILES = ("{folder}/imgs/{stem}.jpg", "{folder}/gts/{stem}.png", "{folder}/valid_masks/{stem}.png")


def _disparity(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8 disparity as HRWSI stores it: 255 nearest, 0 farthest or sky."""
    inverse = inverse_depth(scene)
    low = inverse.min()
    return np.round(255 * (inverse - low) / (1 - low)).astype(np.uint8)


def hrwsi_mask(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8: 0 where a second camera to the right would not see the point of `scene`, else 255."""
    disparity = scene.intrinsics[0, 0] * _BASELINE_METRES / scene.depth
    inside = np.arange(disparity.shape[1]) - disparity >= 0
    return np.where(visible_from_right(disparity) & inside, 255, 0).astype(np.uint8)


def _contents(scene: Scene) -> tuple[bytes, bytes, bytes]:
    return encode_jpeg(scene.image), encode_png(_disparity(scene)), encode_png(hrwsi_mask(scene))


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    split = "val" if index % _VAL_EVERY == _VAL_EVERY - 1 else "train"
    write_sample(root, f"{split}/{index:06d}", dict(zip(_FILES, _contents(views[0]), strict=True)))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    image, stored, mask = _contents(scene)
    contents = {
        "missing partner": (image, stored, None),
        "truncated image": (half(image), stored, mask),
        "truncated depth": (image, half(stored), mask),
        "mismatched size": (encode_jpeg(scene.image[: len(scene.image) // 2]), stored, mask),
        "empty depth": (image, stored, encode_png(np.zeros(scene.depth.shape, np.uint8))),
        "grey image": (grey_jpeg(scene.image), stored, mask),
    }
    return write_traps(root, "train/{what}", _FILES, contents)


_KINDS = ("countryside", "facade", "facade", "street", "things on a floor")
WRITER = Writer(_write_views, _write_traps, kinds=_KINDS)
