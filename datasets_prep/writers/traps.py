"""Samples with the defects that the real datasets have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Pair, write_sample

Map = NDArray[Any]

UNUSABLE = ("missing partner", "truncated image", "truncated depth", "mismatched size", "empty depth")
"""What makes a pair of image and depth map unusable in most datasets."""


@dataclass(frozen=True, slots=True)
class Traps:
    """Samples with defects of a dataset that stores pairs; serves as `Writer.traps`.

    Attributes:
        sample_id: of a trap; `{number}` counts from 0, `{what}` is the defect with underscores.
        pair: how the dataset stores its samples.
        defects: names of the defects, in the order of the traps.
        empty: value of a map without a valid pixel.
        maps: name of a further defect → its map, made of the scene and the good map.
    """

    sample_id: str
    pair: Pair
    defects: tuple[str, ...]
    empty: float = 0
    maps: Mapping[str, Callable[[Scene, Map], Map]] = field(default_factory=dict)

    def __call__(self, root: Path, seed: int, scene: Scene) -> dict[str, str]:
        """Write a sample for each defect of `scene` below `root`; `seed` is ignored. Sample id → defect."""
        return write_traps(root, self.sample_id, (self.pair.image, self.pair.target), self.pairs(scene))

    def pairs(self, scene: Scene) -> dict[str, tuple[bytes, bytes | None]]:
        """Defect → image and map of `scene` with that defect, both encoded."""
        values, encode = self.pair.values(scene), self.pair.encode
        image, stored = self.pair.encode_image(scene.image), encode(values)
        empty = encode(np.full_like(values, self.empty))
        in_png = self.pair.encode_image is encode_png
        grey_image = encode_png(grey(scene.image)[..., 0]) if in_png else grey_jpeg(scene.image)
        pairs = {
            "missing partner": (image, None),
            "truncated image": (half(image), stored),
            "truncated depth": (image, half(stored)),
            "truncated label": (image, half(stored)),
            "mismatched size": (image, encode(values[: len(values) // 2])),
            "empty depth": (image, empty),
            "empty label": (image, empty),
            "grey image": (grey_image, stored),
            "RGBA image": (encode_png(with_alpha(scene.image)), stored),
        }
        pairs |= {what: (image, encode(made(scene, values))) for what, made in self.maps.items()}
        return {what: pairs[what] for what in self.defects}


def write_traps(
    root: Path,
    sample_id: str,
    paths: Sequence[str],
    contents: Mapping[str, Sequence[bytes | None]],
    start: int = 0,
) -> dict[str, str]:
    """Write one sample for each defect.

    Args:
        root: dataset root.
        sample_id: as in `Traps`.
        paths: paths of a sample's files, see `write_sample`.
        contents: defect → contents of those files, None for a missing one.
        start: first `{number}`.

    Returns:
        Sample id → defect.
    """
    traps = {}
    for number, (what, files) in enumerate(contents.items(), start):
        name = sample_id.format(number=number, what=what.replace(" ", "_"))
        write_sample(root, name, dict(zip(paths, files, strict=True)))
        traps[name] = what
    return traps


def half(data: bytes) -> bytes:
    """The first half of `data`, as a download that broke off leaves it."""
    return data[: len(data) // 2]


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) `image` → (H, W, 1), the mean of the channels."""
    return image.mean(axis=2, keepdims=True).astype(np.uint8)


def grey_jpeg(image: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) `image` → JPEG of one channel."""
    return encode_jpeg(grey(image))


def with_alpha(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) `image` → (H, W, 4), opaque."""
    return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
