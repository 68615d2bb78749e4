"""Files in the layout of NYU Depth v2 as PNG; the format's facts are in `sources.nyuv2`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, fixed_point, write_file, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps


def clear_margin(depth: NDArray[Any]) -> NDArray[Any]:
    """Set a margin of (H, W) `depth`, a twelfth of the height wide, to 0 in place; returns it."""
    margin = max(1, depth.shape[0] // 12)
    depth[:margin] = depth[:, :margin] = depth[:, -margin:] = 0
    return depth


def _millimetres(scene: Scene) -> NDArray[np.uint16]:
    return clear_margin(fixed_point(scene, 1000, 10))


_PAIR = Pair(
    "{folder}/rgb_{stem}.jpg", encode_jpeg, "{folder}/sync_depth_{stem}.png", encode_png, _millimetres
)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    folder = f"{'official_splits/test' if index % 4 == 3 else 'sync'}/rendered_{index:04d}"
    for number, scene in enumerate(views):
        write_sample(root, f"{folder}/{number:05d}", _PAIR.files(scene))


def _write_list(path: Path, scenes: Sequence[str], count: int) -> None:
    """A list of `count` photos of each scene with a leading slash on every path, as the real one has."""
    names = [(scene, number) for scene in scenes for number in range(count)]
    lines = [f"/{scene}/rgb_{n:05d}.jpg /{scene}/sync_depth_{n:05d}.png 518.8579" for scene, n in names]
    write_file(path, "\n".join(lines).encode())


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    scenes = [f"rendered_{index:04d}" for index in range(len(seeds)) if index % 4 != 3]
    _write_list(root / "nyudepthv2_train_files_with_gt.txt", scenes, VIEWS)


_TRAPS = Traps("sync/traps/{number:05d}", _PAIR, (*UNUSABLE, "grey image"))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    _write_list(root / "traps_train_files.txt", ["traps"], len(_TRAPS.defects))
    return _TRAPS(root, seed, scene)


WRITER = Writer(_write_views, _write_traps, _write_lists, ("room",), VIEWS)
