"""Generated files in the layout of ApolloScape stereo; the format's facts are in `sources.apolloscape`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene, render_scene
from datasets_prep.writers.base import Layout, grey, write_file

_INVALID = 65535
_FACTOR = 200
_METRE_PIXELS = 0.36 * 2301.3
KINDS = ("street",)


def apolloscape_map(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16 disparity of the real cameras times 200, 65535 in the sky."""
    disparity = np.round(_FACTOR * _METRE_PIXELS / scene.depth)
    disparity = np.clip(disparity, 1, _INVALID - 1)
    return np.where(scene.sky, _INVALID, disparity).astype(np.uint16)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    scene = render_scene(seed, height, width, KINDS)
    # Every third frame is of the same minute as the one before.
    time = f"171206_{34 + index // 3:04d}{index:05d}"
    stored = apolloscape_map(scene)
    near = (stored > _FACTOR * _METRE_PIXELS / 15) & (stored != _INVALID)
    far = ~near & (stored != _INVALID)
    part = root / f"stereo_train_{index % 3 + 1:03d}"
    write_file(part / "camera_5" / f"{time}_Camera_5.jpg", encode_jpeg(scene.image))
    write_file(part / "disparity" / f"{time}_Camera_5.png", encode_png(stored))
    for name, mask in {"fg_mask": near, "bg_mask": far}.items():
        data = encode_png(np.where(mask, _INVALID, 0).astype(np.uint16))
        write_file(part / name / f"{time}_Camera_5.png", data)


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, stored = encode_jpeg(scene.image), apolloscape_map(scene)
    depth = encode_png(stored)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_png(stored[: height // 2])),
        "empty depth": (image, encode_png(np.full_like(stored, _INVALID))),
        "grey image": (encode_jpeg(grey(scene.image)), depth),
    }
    traps, part = {}, "stereo_train_009"
    for number, (what, (picture, png)) in enumerate(files.items()):
        time = f"180101_{number:09d}"
        write_file(root / part / "camera_5" / f"{time}_Camera_5.jpg", picture)
        if png is not None:
            write_file(root / part / "disparity" / f"{time}_Camera_5.png", png)
        traps[f"{part}/{time}"] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
