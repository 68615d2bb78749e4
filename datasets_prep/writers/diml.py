"""Generated files in the layouts of DIML, indoor and outdoor; the format's facts are in `sources.diml`.

Every fourth scene is written as the sample set has it, the others as the full set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene, render_scene
from datasets_prep.writers.base import Layout, grey, with_alpha, write_file

_INDOOR = ("room", "hall")
_OUTDOOR = ("street", "countryside", "plaza")
_SAMPLE_SET_EVERY = 4


def millimetres(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16 millimetres as DIML stores them: 0 where there is nothing or too far away."""
    stored = np.round(1000 * np.where(scene.depth < 65.5, scene.depth, 0))
    return stored.astype(np.uint16)


def _write_indoor(root: Path, index: int, seed: int, height: int, width: int) -> None:
    scene = render_scene(seed, height, width, _INDOOR)
    stem = f"in_k_{index % 3:02d}_170101_{index:06d}"
    image, depth = encode_png(scene.image), encode_png(millimetres(scene))
    if index % _SAMPLE_SET_EVERY == _SAMPLE_SET_EVERY - 1:
        split = "test" if index % (2 * _SAMPLE_SET_EVERY) == _SAMPLE_SET_EVERY - 1 else "train"
        place = root / "indoor" / split / "HR" / "rendered_room"
        write_file(place / "color" / f"{stem}_c.png", image)
        write_file(place / "depth_filled" / f"{stem}_depth_filled.png", depth)
        return
    place = root / f"{index + 1}. Rendered Room" / "170101" / "1"
    write_file(place / "col" / f"{stem}_c.png", image)
    # What follows the stem differs between the real folders.
    write_file(place / "up_png" / f"{stem}_{('ud', 'up_depth')[index % 2]}.png", depth)


def _write_indoor_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, _INDOOR)
    image, metres = encode_png(scene.image), millimetres(scene)
    depth = encode_png(metres)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_png(metres[: height // 2])),
        "empty depth": (image, encode_png(np.zeros_like(metres))),
        "grey image": (encode_png(grey(scene.image)[..., 0]), depth),
        "RGBA image": (encode_png(with_alpha(scene.image)), depth),
    }
    traps, folder = {}, "99. Traps/170101/1"
    for what, (picture, stored) in files.items():
        stem = what.replace(" ", "_")
        write_file(root / folder / "col" / f"{stem}_c.png", picture)
        if stored is not None:
            write_file(root / folder / "up_png" / f"{stem}_ud.png", stored)
        traps[f"{folder}/{stem}"] = what
    return traps


def _confidence(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8: certain where depth is smooth, doubtful at its edges."""
    inverse = 1 / scene.depth
    step = np.abs(np.diff(inverse, axis=1, append=inverse[:, -1:]))
    return np.where(step < 0.02 * inverse.max(), 230, 90).astype(np.uint8)


def _write_outdoor(root: Path, index: int, seed: int, height: int, width: int) -> None:
    scene = render_scene(seed, height, width, _OUTDOOR)
    image, depth = encode_png(scene.image), encode_png(millimetres(scene))
    if index % _SAMPLE_SET_EVERY == _SAMPLE_SET_EVERY - 1:
        place = root / "outdoor" / "train" / "HR" / "rendered"
        write_file(place / "outleft" / f"{index:06d}.png", image)
        write_file(place / "depthmap" / f"{index:06d}.png", depth)
        return
    _write_stereo(root / f"170721_C{index}" / "A", f"170721_{index:06d}", image, depth, _confidence(scene))


def _write_stereo(
    place: Path, stem: str, image: bytes, depth: bytes | None, confidence: NDArray[np.uint8]
) -> None:
    write_file(place / "left" / f"{stem}_left.png", image)
    write_file(place / "conf" / f"{stem}_conf.png", encode_png(confidence))
    if depth is not None:
        write_file(place / "depth" / f"{stem}_depth.png", depth)


def _write_outdoor_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, _OUTDOOR)
    image, metres, sure = encode_png(scene.image), millimetres(scene), _confidence(scene)
    depth = encode_png(metres)
    files = {
        "missing partner": (image, None, sure),
        "truncated image": (image[: len(image) // 2], depth, sure),
        "truncated depth": (image, depth[: len(depth) // 2], sure),
        "empty depth": (image, depth, np.zeros_like(sure)),
    }
    traps = {}
    for what, (picture, stored, confidence) in files.items():
        stem = what.replace(" ", "_")
        _write_stereo(root / "170101_C9" / "A", stem, picture, stored, confidence)
        traps[f"170101_C9/A/{stem}"] = what
    return traps


INDOOR = Layout(_write_indoor, _write_indoor_traps)
OUTDOOR = Layout(_write_outdoor, _write_outdoor_traps)
