"""Generated files in the layout of MPI Sintel; the format's facts are in `sources.sintel`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_sintel_depth
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, with_alpha, write_file

_SKY_METRES = 1e10


def sintel_map(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres, very large in the sky."""
    return np.where(scene.sky, np.float32(_SKY_METRES), scene.depth)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    sequence = f"rendered_{index}"
    for number, scene in enumerate(render_views(seed, VIEWS, height, width), start=1):
        for place in ("final", "clean"):
            path = root / "training" / place / sequence / f"frame_{number:04d}.png"
            write_file(path, encode_png(scene.image))
        path = root / "training" / "depth" / sequence / f"frame_{number:04d}.dpt"
        write_file(path, encode_sintel_depth(sintel_map(scene)))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width)
    image, metres = encode_png(scene.image), sintel_map(scene)
    depth = encode_sintel_depth(metres)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_sintel_depth(metres[: height // 2])),
        "empty depth": (image, encode_sintel_depth(np.zeros_like(metres))),
        "RGBA image": (encode_png(with_alpha(scene.image)), depth),
    }
    traps = {}
    for number, (what, (picture, stored)) in enumerate(files.items()):
        frame = f"traps/frame_{number:04d}"
        write_file(root / "training" / "final" / f"{frame}.png", picture)
        if stored is not None:
            write_file(root / "training" / "depth" / f"{frame}.dpt", stored)
        traps[frame] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
