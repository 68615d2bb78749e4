"""Generated files in the layouts of Pascal Context; the format's facts are in `sources.pascal_context`.

Every second mask is MATLAB as published, the others are PNG as MMSegmentation converts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.matlab import encode_matlab_arrays
from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import render_scene
from datasets_prep.writers.base import Layout, grey, write_file
from datasets_prep.writers.label_map import label_map

CLASSES = (47, 37, 29, 53, 35)
"""Of sky, person, grass, tree and mountain among the 59, from 1."""

WHOLE_SET = {0: 0, 47: 360, 37: 284, 29: 187, 53: 420, 35: 259}
"""The same classes, and background, in the numbering of the 459."""

_VAL_EVERY = 4


def _mat(labels: NDArray[np.uint8]) -> bytes:
    """`LabelMap` in the numbering of the whole set, with a class that is none of the 59."""
    table = np.zeros(256, np.uint16)
    table[list(WHOLE_SET)] = list(WHOLE_SET.values())
    stored = table[labels]
    stored[:2, :2] = 1
    return encode_matlab_arrays({"LabelMap": stored})


def _write_photo(root: Path, name: str, image: bytes, labels: bytes | None, suffix: str) -> None:
    write_file(root / "VOC2010" / "JPEGImages" / f"{name}.jpg", image)
    folder = "trainval" if suffix == "mat" else "SegmentationClassContext"
    if labels is not None:
        write_file(root / "VOC2010" / folder / f"{name}.{suffix}", labels)


def _name(index: int) -> str:
    return f"2008_{index:06d}"


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    scene = render_scene(seed, height, width)
    labels = label_map(scene, CLASSES, 0)
    suffix = ("png", "mat")[index % 2]
    data = encode_png(labels) if suffix == "png" else _mat(labels)
    _write_photo(root, _name(index), encode_jpeg(scene.image), data, suffix)


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    place = root / "VOC2010" / "ImageSets" / "SegmentationContext"
    for split, rest in {"train": (0, 1, 2), "val": (3,)}.items():
        names = [_name(index) for index in range(len(seeds)) if index % _VAL_EVERY in rest]
        write_file(place / f"{split}.txt", "".join(f"{name}\n" for name in names).encode())


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width)
    image, stored = encode_jpeg(scene.image), label_map(scene, CLASSES, 0)
    labels, mat = encode_png(stored), _mat(stored)
    files = {
        "truncated image": (image[: len(image) // 2], labels),
        "truncated label": (image, mat[: len(mat) // 2]),
        "unknown label": (image, encode_png(np.full_like(stored, 60))),
        "mismatched size": (image, encode_png(stored[: height // 2])),
        "grey image": (encode_jpeg(grey(scene.image)), labels),
    }
    traps = {}
    for number, (what, (picture, data)) in enumerate(files.items()):
        name = _name(900_000 + number)
        _write_photo(root, name, picture, data, "mat" if data.startswith(b"MATLAB") else "png")
        traps[name] = what
    # A mask of a photo that is not there; photos without masks are most of VOC, and no defect.
    missing = _name(999_999)
    write_file(root / "VOC2010" / "SegmentationClassContext" / f"{missing}.png", labels)
    traps[missing] = "missing partner"
    place = root / "traps" / "SegmentationContext"
    write_file(place / "train.txt", "".join(f"{name}\n" for name in traps).encode())
    return traps


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
