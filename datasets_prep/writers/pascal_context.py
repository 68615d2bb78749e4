"""Files in the layouts of Pascal Context; the format's facts are in `sources.pascal_context`.

Every second mask is MATLAB as published, the others are PNG as MMSegmentation converts them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.matlab import encode_matlab_arrays
from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Pair, Writer, label_map, write_lines, write_sample
from datasets_prep.writers.traps import Traps, half, write_traps

CLASSES = (47, 37, 29, 53, 35)
"""Of sky, person, grass, tree and mountain among the 59, from 1."""

# The same classes, and background, in the numbering of the 459.
_WHOLE_SET = {0: 0, 47: 360, 37: 284, 29: 187, 53: 420, 35: 259}
_VAL_EVERY = 4
_IMAGE = "VOC2010/JPEGImages/{id}.jpg"
_PNG = "VOC2010/SegmentationClassContext/{id}.png"
_MAT = "VOC2010/trainval/{id}.mat"
_MISSING = "2008_999999"
_labels = partial(label_map, classes=CLASSES)


def _encode_mat(labels: NDArray[np.uint8]) -> bytes:
    """`LabelMap` in the numbering of the whole set, with a class that is not among the 59."""
    table = np.zeros(256, np.uint16)
    table[list(_WHOLE_SET)] = list(_WHOLE_SET.values())
    stored = table[labels]
    stored[:2, :2] = 1
    return encode_matlab_arrays({"LabelMap": stored})


def _name(index: int) -> str:
    return f"2008_{index:06d}"


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    labels = _labels(views[0])
    mask = {_MAT: _encode_mat(labels)} if index % 2 else {_PNG: encode_png(labels)}
    write_sample(root, _name(index), {_IMAGE: encode_jpeg(views[0].image), **mask})


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    folder = root / "VOC2010" / "ImageSets" / "SegmentationContext"
    for split, rest in {"train": (0, 1, 2), "val": (3,)}.items():
        names = [_name(index) for index in range(len(seeds)) if index % _VAL_EVERY in rest]
        write_lines(folder / f"{split}.txt", names)


_DEFECTS = ("truncated image", "truncated label", "unknown label", "mismatched size", "grey image")
_UNKNOWN = {"unknown label": lambda scene, labels: np.full_like(labels, 60)}
_PAIR = Pair(_IMAGE, encode_jpeg, _PNG, encode_png, _labels)
_TRAPS = Traps("2008_{number}", _PAIR, _DEFECTS, maps=_UNKNOWN)


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    """With a mask of a photo that is not there; photos without masks are most of VOC, and no defect."""
    pairs = _TRAPS.pairs(scene).items()
    contents: dict[str, tuple[bytes | None, ...]] = {what: (*pair, None) for what, pair in pairs}
    contents["truncated label"] = (encode_jpeg(scene.image), None, half(_encode_mat(_labels(scene))))
    traps = write_traps(root, _TRAPS.sample_id, (_IMAGE, _PNG, _MAT), contents, start=900_000)
    write_sample(root, _MISSING, {_PNG: encode_png(_labels(scene))})
    traps[_MISSING] = "missing partner"
    write_lines(root / "traps" / "SegmentationContext" / "train.txt", list(traps))
    return traps


WRITER = Writer(_write_views, _write_traps, _write_lists)
