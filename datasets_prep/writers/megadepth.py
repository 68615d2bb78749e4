"""Files in the layout of MegaDepth v1; the format's facts are in `sources.megadepth`."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.hdf5 import encode_hdf5_arrays
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps


def megadepth_map(scene: Scene, seed: int) -> NDArray[np.float32]:
    """(H, W) float32 depth of `scene` in a unit drawn from `seed`; 0 in the sky and in some patches."""
    rng = np.random.default_rng(seed)
    height, width = scene.depth.shape
    depth = scene.depth * np.float32(np.exp(rng.uniform(-3, 1)))
    depth[scene.sky] = 0
    for _ in range(6):
        row, column = rng.integers(height), rng.integers(width)
        depth[row : row + height // 5, column : column + width // 5] = 0
    return depth


def _pair(seed: int, suffix: str = "{suffix}") -> Pair:
    """`seed` is that of the scene; `suffix` the one of its image."""
    image, depth = f"{{folder}}/imgs/{{stem}}.{suffix}", "{folder}/depths/{stem}.h5"
    values = partial(megadepth_map, seed=seed)
    return Pair(image, encode_jpeg, depth, lambda depth: encode_hdf5_arrays({"depth": depth}), values)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    folder = f"phoenix/S6/zl548/MegaDepth_v1/{index:04d}/dense{index % 3}"
    for number, scene in enumerate(views):
        files = _pair(seed, ("jpg", "JPG")[number % 2]).files(scene)
        write_sample(root, f"{folder}/{seed % 10**8 + number}_o", files)


def _ordinal(scene: Scene, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map for training with ordinal pairs: -1 unknown, 2 in front, 1 behind."""
    ordinal = np.where(scene.sky, -1, np.where(scene.depth < 10, 2, 1)).astype(np.float32)
    ordinal[0, 0] = -1
    return ordinal


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    maps = {
        "ordinal depth": _ordinal,
        "ordinal depth without signs": lambda scene, depth: np.abs(_ordinal(scene, depth)),
    }
    defects = (*UNUSABLE, *maps, "grey image", "RGBA image")
    return Traps("5018/dense0/{what}", _pair(seed), defects, maps=maps)(root, seed, scene)


WRITER = Writer(_write_views, _write_traps, kinds=("plaza", "street", "countryside"), views=VIEWS)
