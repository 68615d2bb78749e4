"""Generated files in the layout of MegaDepth v1; the format's facts are in `sources.megadepth`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.hdf5 import encode_hdf5_arrays
from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, grey, with_alpha, write_file

KINDS = ("plaza", "street", "countryside")


def megadepth_map(scene: Scene, seed: int) -> NDArray[np.float32]:
    """(H, W) float32 depth in a scene's own unit; 0 in the sky and in patches without texture to match."""
    rng = np.random.default_rng(seed)
    height, width = scene.depth.shape
    depth = scene.depth * np.float32(np.exp(rng.uniform(-3, 1)))
    depth[scene.sky] = 0
    for _ in range(6):
        row, column = rng.integers(height), rng.integers(width)
        depth[row : row + height // 5, column : column + width // 5] = 0
    return depth


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    place = root / "phoenix" / "S6" / "zl548" / "MegaDepth_v1" / f"{index:04d}" / f"dense{index % 3}"
    for number, scene in enumerate(render_views(seed, VIEWS, height, width, KINDS)):
        suffix = ("jpg", "JPG")[number % 2]
        write_file(place / "imgs" / f"{seed % 10**8 + number}_o.{suffix}", encode_jpeg(scene.image))
        depth = encode_hdf5_arrays({"depth": megadepth_map(scene, seed)})
        write_file(place / "depths" / f"{seed % 10**8 + number}_o.h5", depth)


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, metres = encode_jpeg(scene.image), megadepth_map(scene, seed)
    depth = encode_hdf5_arrays({"depth": metres})
    ordinal = np.where(scene.sky, -1, np.where(scene.depth < 10, 2, 1)).astype(np.float32)
    ordinal[0, 0] = -1
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_hdf5_arrays({"depth": metres[: height // 2]})),
        "empty depth": (image, encode_hdf5_arrays({"depth": np.zeros_like(metres)})),
        "ordinal depth": (image, encode_hdf5_arrays({"depth": ordinal})),
        "ordinal depth without signs": (image, encode_hdf5_arrays({"depth": np.abs(ordinal)})),
        "grey image": (encode_jpeg(grey(scene.image)), depth),
        "RGBA image": (encode_png(with_alpha(scene.image)), depth),
    }
    traps = {}
    for what, (picture, h5) in files.items():
        name = what.replace(" ", "_")
        suffix = "png" if what == "RGBA image" else "jpg"
        write_file(root / "5018" / "dense0" / "imgs" / f"{name}.{suffix}", picture)
        if h5 is not None:
            write_file(root / "5018" / "dense0" / "depths" / f"{name}.h5", h5)
        traps[f"5018/dense0/{name}"] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
