"""Generated files in the layout of NYU Depth v2 as PNG; the format's facts are in `sources.nyuv2`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, grey, write_file

KINDS = ("room",)


def nyuv2_map(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16 millimetres, 0 in a margin as the real maps have it."""
    stored = np.round(1000 * np.where(scene.depth < 10, scene.depth, 0)).astype(np.uint16)
    margin = max(1, stored.shape[0] // 12)
    stored[:margin] = stored[:, :margin] = stored[:, -margin:] = 0
    return stored


def _write_photo(folder: Path, number: int, image: bytes, depth: bytes | None) -> None:
    write_file(folder / f"rgb_{number:05d}.jpg", image)
    if depth is not None:
        write_file(folder / f"sync_depth_{number:05d}.png", depth)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    place = root / ("official_splits/test" if index % 4 == 3 else "sync") / f"rendered_{index:04d}"
    for number, scene in enumerate(render_views(seed, VIEWS, height, width, KINDS)):
        _write_photo(place, number, encode_jpeg(scene.image), encode_png(nyuv2_map(scene)))


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """A training list with a leading slash on every path, as the real one has."""
    lines = []
    for index in range(len(seeds)):
        if index % 4 != 3:
            scene = f"/rendered_{index:04d}"
            lines += [
                f"{scene}/rgb_{n:05d}.jpg {scene}/sync_depth_{n:05d}.png 518.8579" for n in range(VIEWS)
            ]
    write_file(root / "nyudepthv2_train_files_with_gt.txt", "\n".join(lines).encode())


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, stored = encode_jpeg(scene.image), nyuv2_map(scene)
    depth = encode_png(stored)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_png(stored[: height // 2])),
        "empty depth": (image, encode_png(np.zeros_like(stored))),
        "grey image": (encode_jpeg(grey(scene.image)), depth),
    }
    traps = {}
    for number, (what, (picture, png)) in enumerate(files.items()):
        _write_photo(root / "sync" / "traps", number, picture, png)
        traps[f"sync/traps/{number:05d}"] = what
    lines = [f"/traps/rgb_{n:05d}.jpg /traps/sync_depth_{n:05d}.png 518.8579" for n in range(len(files))]
    write_file(root / "traps_train_files.txt", "\n".join(lines).encode())
    return traps


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
