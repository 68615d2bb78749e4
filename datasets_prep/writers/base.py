"""What every writer offers, and what the writers share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.scenes import Scene, render_views
from datasets_prep.storage.writing import writing_file

VIEWS = 5
"""Views of each scene in the datasets that have several: a BlendedMVS project, a TartanAir trajectory."""

BANDS_METRES = (3.0, 8.0, 20.0)
"""Where one band of depth ends and the next begins in a `label_map`."""

_SUFFIXES = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"MATLAB": "mat",
    b"\x93NUMPY": "npy",
    b"Pf": "pfm",
    b"v/1\x01": "exr",
    b"II*\0": "tif",
}
"""First bytes of a file → suffix of its format."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes a miniature of one dataset.

    Attributes:
        write_views: writes all files of one scene; called with root, index, seed, rendered views. The index
            decides names, the seed what is random in the files.
        traps: adds samples with the defects of the real set; called with root, seed and one rendered view.
            Returns sample id → defect.
        lists: writes the list files of the official split; called with root and the seeds of all scenes.
            None where the dataset has no lists.
        kinds: kinds of world, keys of `render.worlds.KINDS`; empty for all that vary. One that
            stands twice is drawn twice as often.
        views: views of each scene.
        portraits: whether every third scene is in portrait format.
    """

    write_views: Callable[[Path, int, int, list[Scene]], None]
    traps: Callable[[Path, int, Scene], dict[str, str]]
    lists: Callable[[Path, Sequence[int]], None] | None = None
    kinds: tuple[str, ...] = ()
    views: int = 1
    portraits: bool = False

    def write_scene(self, root: Path, index: int, seed: int, height: int, width: int) -> None:
        """Write all files of scene number `index` below `root`, drawn from `seed`, `height` × `width`."""
        if self.portraits and index % 3 == 2:
            height, width = width, height
        views = render_views(seed, self.views, height, width, self.kinds)
        self.write_views(root, index, seed, views)

    def write_traps(self, root: Path, seed: int, height: int, width: int) -> dict[str, str]:
        """Write samples with defects below `root`, drawn from `seed`, `height` × `width`; id → defect."""
        return self.traps(root, seed, render_views(seed, 1, height, width, self.kinds)[0])


@dataclass(frozen=True, slots=True)
class Pair:
    """How a dataset stores an image and the map that belongs to it.

    Attributes:
        image, target: paths of the two files, see `write_sample`.
        encode_image: (H, W, C) uint8 → file of the image.
        encode: map → its file.
        values: rendered view → (H, W) map as the dataset stores it.
    """

    image: str
    encode_image: Callable[[NDArray[np.uint8]], bytes]
    target: str
    encode: Callable[[NDArray[Any]], bytes]
    values: Callable[[Scene], NDArray[Any]]

    def files(self, scene: Scene) -> dict[str, bytes]:
        """Path → content of the two files of `scene`, for `write_sample`."""
        return {self.image: self.encode_image(scene.image), self.target: self.encode(self.values(scene))}


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all, making its folder if needed."""
    with writing_file(path) as partial:
        partial.write_bytes(data)


def write_lines(path: Path, lines: Sequence[str], end: str = "\n") -> None:
    """Write a list file: `lines` to `path`, each followed by `end`."""
    write_file(path, "".join(f"{line}{end}" for line in lines).encode())


def write_sample(root: Path, sample_id: str, files: Mapping[str, bytes | None]) -> None:
    """Write the files of one sample.

    Args:
        root: dataset root.
        sample_id: id that the dataset's source gives the sample, such as `scene_1/0004`.
        files: path below the root → content, None for a file that is missing on purpose. In a path, `{id}`
            is the id, `{folder}` and `{stem}` what is before and after its last slash, `{parts[0]}` what is
            before its first slash, and `{suffix}` the suffix of the content's format, such as `png`.
    """
    folder, _, stem = sample_id.rpartition("/")
    for path, data in files.items():
        if data is not None:
            suffix = next((suffix for magic, suffix in _SUFFIXES.items() if data.startswith(magic)), "")
            names = {"id": sample_id, "folder": folder, "stem": stem, "suffix": suffix}
            write_file(root / path.format(parts=sample_id.split("/"), **names), data)


def inverse_depth(scene: Scene) -> NDArray[np.float32]:
    """(H, W) inverse depth of `scene`, divided by its 99th percentile and cut at 1: sky is 0, near is 1."""
    inverse = (1 / scene.depth).astype(np.float32)
    return np.minimum(inverse / np.float32(np.quantile(inverse, 0.99)), np.float32(1))


def fixed_point(scene: Scene, per_metre: int, farthest: float) -> NDArray[np.uint16]:
    """(H, W) uint16 depth of `scene` times `per_metre`, 0 from `farthest` metres on and in the sky."""
    return np.round(per_metre * np.where(scene.depth < farthest, scene.depth, 0)).astype(np.uint16)


def visible_from_right(disparity: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where a left view with (H, W) `disparity` in pixels shows points that the right view shows as well.

    A point at column x of the left view is at x - disparity in the right one. It is hidden there if a point
    to its right in the left view comes to lie to its left: with disparities (0, 0, 3) the columns become
    (0, 1, -1), so the last point has jumped before the other two and hides them.
    """
    seen_at = np.arange(disparity.shape[1]) - disparity
    leftmost = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
    return seen_at <= leftmost + 0.5


def label_map(scene: Scene, classes: tuple[int, int, int, int, int]) -> NDArray[np.uint8]:
    """(H, W) uint8 classes of `scene`; 0, no label, in a corner, as annotators leave things out.

    `classes` are of the sky, then of the `BANDS_METRES` of depth from near to far.
    """
    labels = np.array(classes[1:], np.uint8)[np.digitize(scene.depth, BANDS_METRES)]
    labels[scene.sky] = classes[0]
    height, width = labels.shape
    labels[-height // 8 :, : width // 8] = 0
    return labels
