"""Generated files in the layout of KITTI; the format's facts are in `sources.kitti`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, with_alpha, write_file

KINDS = ("street from a car",)
_DATE = "2011_09_26"


def kitti_map(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16 metres times 256 on every third row of the lower part, 0 elsewhere and beyond 90 m."""
    stored = np.round(256 * np.where(scene.depth < 90, scene.depth, 0)).astype(np.uint16)
    rows = np.arange(stored.shape[0])
    stored[(rows % 3 != 0) | (rows < stored.shape[0] / 3)] = 0
    return stored


def _drive(index: int) -> str:
    return f"{_DATE}_drive_{index:04d}_sync"


def _write_frame(
    root: Path, drive: str, camera: str, number: int, split: str, image: bytes, depth: bytes | None
) -> None:
    write_file(root / "raw" / _DATE / drive / camera / "data" / f"{number:010d}.png", image)
    if depth is not None:
        place = root / "depth" / split / drive / "proj_depth" / "groundtruth" / camera
        write_file(place / f"{number:010d}.png", depth)


def _split(index: int) -> str:
    return "val" if index % 3 == 1 else "train"


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    for number, scene in enumerate(render_views(seed, VIEWS, height, width, KINDS)):
        # The first and last frames of the real drives have no depth; here the first.
        depth = encode_png(kitti_map(scene)) if number else None
        camera = f"image_0{2 + number % 2}"
        image = encode_png(scene.image)
        _write_frame(root, _drive(index), camera, number, _split(index), image, depth)


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """An Eigen list of some frames of the even drives, with unpadded numbers and one frame without depth."""
    lines = [
        f"{_DATE}/{_drive(index)} {number} {'lr'[number % 2]}"
        for index in range(len(seeds))
        if index < 2
        for number in (0, 2, 3)
    ]
    write_file(root / "eigen_test_files.txt", "\n".join(lines).encode())


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, stored = encode_png(scene.image), kitti_map(scene)
    depth = encode_png(stored)
    files = {
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_png(stored[: height // 2])),
        "empty depth": (image, encode_png(np.zeros_like(stored))),
        "RGBA image": (encode_png(with_alpha(scene.image)), depth),
    }
    drive, traps = _drive(9999), {}
    for number, (what, (picture, png)) in enumerate(files.items()):
        _write_frame(root, drive, "image_02", number, "val", picture, png)
        traps[f"{drive}/image_02/{number:010d}"] = what
    # Here it is the image that is missing: depth for a drive that was not downloaded.
    place = root / "depth" / "val" / drive / "proj_depth" / "groundtruth" / "image_03"
    write_file(place / f"{77:010d}.png", depth)
    traps[f"{drive}/image_03/{77:010d}"] = "missing partner"
    # All of them are listed, so that every set made from the list meets them.
    lines = [f"{_DATE}/{drive} {number:010d} l" for number in range(len(files))]
    write_file(root / "more_test_files.txt", "\n".join([*lines, f"{_DATE}/{drive} 77 r"]).encode())
    return traps


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
