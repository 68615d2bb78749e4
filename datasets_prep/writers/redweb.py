"""Generated files in the layout of ReDWeb; the format's facts are in `sources.redweb`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene, render_scene
from datasets_prep.writers.base import Layout, grey, inverse_depth, with_alpha, write_file

KINDS = ("countryside", "things on a floor")


def redweb_map(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8 map as ReDWeb stores it: 0 nearest, 254 farthest, 255 sky."""
    stored = np.round(254 * (1 - inverse_depth(scene))).astype(np.uint8)
    stored[scene.sky] = 255
    return stored


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    if index % 3 == 2:  # a portrait
        height, width = width, height
    scene = render_scene(seed, height, width, KINDS)
    stored = redweb_map(scene)
    if index % 4 == 3:  # a map of another size than its image
        stored = stored[::2, ::2]
    if index % 5 == 4:  # one channel stored three times
        stored = np.dstack([stored] * 3)
    write_file(root / "Imgs" / f"{index:06d}.jpg", encode_jpeg(scene.image))
    write_file(root / "RDs" / f"{index:06d}.png", encode_png(stored))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, stored = encode_jpeg(scene.image), encode_png(redweb_map(scene))
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], stored),
        "truncated depth": (image, stored[: len(stored) // 2]),
        "empty depth": (image, encode_png(np.full((height, width), 255, np.uint8))),
        "grey image": (encode_jpeg(grey(scene.image)), stored),
        # Some downloads are PNG under the name .jpg.
        "RGBA image": (encode_png(with_alpha(scene.image)), stored),
    }
    traps = {}
    for what, (image, depth) in files.items():
        stem = what.replace(" ", "_")
        write_file(root / "Imgs" / f"{stem}.jpg", image)
        if depth is not None:
            write_file(root / "RDs" / f"{stem}.png", depth)
        traps[stem] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
