"""Generated files in the layout of a user's own folder, described in `sources.folder`.

Depth is stored in every format that the source reads, one after the other, in metres; what the description
calls a unit is half a metre.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_exr, encode_npy, encode_pfm
from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, grey, with_alpha, write_file

UNIT_METRES = 0.5
INVALID = 0.0
SKY = 60000.0
SUFFIXES = ("png", "npy", "exr", "pfm", "tif")

_DESCRIPTION = f"""\
name: rendered_folder
quantity: depth
metric: true
scale: {UNIT_METRES}
invalid: [{INVALID:g}]
sky: {SKY:g}
"""


def folder_map(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 depth in units, whole numbers so that every format keeps them; holes in a corner."""
    stored = np.round(scene.depth / UNIT_METRES)
    stored[scene.sky] = SKY
    stored[:4, :4] = INVALID
    return stored.astype(np.float32)


def encode_map(values: NDArray[np.float32], suffix: str) -> bytes:
    """A map in the format of that suffix."""
    if suffix == "png":
        return encode_png(values.astype(np.uint16))
    if suffix == "npy":
        return encode_npy(values)
    if suffix == "exr":
        return encode_exr({"Z": values})
    if suffix == "pfm":
        return encode_pfm(values)
    return cv2.imencode(".tif", values)[1].tobytes()


def _write_photo(root: Path, name: str, image: bytes, suffix: str, depth: bytes | None) -> None:
    kind = "jpg" if image.startswith(b"\xff\xd8") else "png"
    write_file(root / "images" / f"{name}.{kind}", image)
    if depth is not None:
        write_file(root / "depth" / f"{name}.{suffix}", depth)


def _name(index: int, number: int) -> str:
    return f"place {index}/{number:04d}" if index % 2 else f"{index:03d}{number:04d}"


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    for number, scene in enumerate(render_views(seed, VIEWS, height, width)):
        suffix = SUFFIXES[number % len(SUFFIXES)]
        depth = encode_map(folder_map(scene), suffix)
        _write_photo(root, _name(index, number), encode_jpeg(scene.image), suffix, depth)


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The description, without which the folder is none; no splits."""
    write_file(root / "dataset.yaml", _DESCRIPTION.encode())


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width)
    image, stored = encode_jpeg(scene.image), folder_map(scene)
    depth = encode_png(stored.astype(np.uint16))
    tif = encode_map(stored, "tif")
    files = {
        "missing partner": (image, "png", None),
        "truncated image": (image[: len(image) // 2], "png", depth),
        "truncated depth": (image, "tif", tif[: len(tif) // 2]),
        "mismatched size": (image, "npy", encode_npy(stored[: height // 2])),
        "empty depth": (image, "npy", encode_npy(np.full_like(stored, INVALID))),
        "grey image": (encode_jpeg(grey(scene.image)), "png", depth),
        "RGBA image": (encode_png(with_alpha(scene.image)), "png", depth),
    }
    traps = {}
    for what, (picture, suffix, data) in files.items():
        name = f"traps/{what.replace(' ', '_')}"
        _write_photo(root, name, picture, suffix, data)
        traps[name] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
