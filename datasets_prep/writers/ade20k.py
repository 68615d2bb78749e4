"""Generated files in the layout of SceneParse150; the format's facts are in `sources.ade20k`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import render_scene
from datasets_prep.writers.base import Layout, grey, write_file
from datasets_prep.writers.label_map import label_map

CLASSES = (3, 13, 10, 5, 17)
"""Of sky, person, grass, tree and mountain, as SceneParse150 numbers them, from 1."""

_VAL_EVERY = 4


def _write_photo(root: Path, name: str, split: str, image: bytes, labels: bytes | None) -> None:
    place = root / "ADEChallengeData2016"
    write_file(place / "images" / split / f"{name}.jpg", image)
    if labels is not None:
        write_file(place / "annotations" / split / f"{name}.png", labels)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    if index % 3 == 2:  # a portrait
        height, width = width, height
    scene = render_scene(seed, height, width)
    held_out = index % _VAL_EVERY == _VAL_EVERY - 1
    split, short = ("validation", "val") if held_out else ("training", "train")
    labels = encode_png(label_map(scene, CLASSES, 0))
    _write_photo(root, f"ADE_{short}_{index + 1:08d}", split, encode_jpeg(scene.image), labels)


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width)
    image, stored = encode_jpeg(scene.image), label_map(scene, CLASSES, 0)
    labels = encode_png(stored)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], labels),
        "truncated label": (image, labels[: len(labels) // 2]),
        "unknown label": (image, encode_png(np.full_like(stored, 151))),
        "mismatched size": (image, encode_png(stored[: height // 2])),
        "empty label": (image, encode_png(np.zeros_like(stored))),
        "grey image": (encode_jpeg(grey(scene.image)), labels),
    }
    traps = {}
    for number, (what, (picture, png)) in enumerate(files.items()):
        name = f"ADE_train_{90_000_000 + number}"
        _write_photo(root, name, "training", picture, png)
        traps[name] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
