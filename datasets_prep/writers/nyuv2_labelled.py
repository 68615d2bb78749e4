"""Files in the layout of the labelled part of NYU Depth v2; facts in `sources.nyuv2_labelled`.

All photos are in one file, so each scene lies in a part of its own until the lists are written at the end.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.matlab import encode_matlab_arrays
from datasets_prep.render.scenes import Scene
from datasets_prep.storage.writing import writing_file
from datasets_prep.writers.base import VIEWS, Writer, write_file
from datasets_prep.writers.nyuv2 import clear_margin

_FILE_NAME = "nyu_depth_v2_labeled.mat"
_TEST_EVERY = 3
_USER_BLOCK = b"MATLAB 7.3 MAT-file".ljust(512)


def raw_depth(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres of `scene`, 0 where the Kinect sees nothing: beyond 10 m and in a margin."""
    return clear_margin(np.where(scene.depth < 10, scene.depth, 0).astype(np.float32))


def _part(root: Path, index: int) -> Path:
    return root / f"part_{index:04d}.npz"


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    images = np.stack([scene.image for scene in views])
    depths = np.stack([raw_depth(scene) for scene in views])
    with writing_file(_part(root, index)) as path, path.open("wb") as file:
        np.savez(file, images=images, depths=depths)


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The file of all photos, made of the scenes' parts, and `splits.mat`."""
    parts = [np.load(_part(root, index)) for index in range(len(seeds))]
    images = np.concatenate([part["images"] for part in parts])
    _write_photos(root, images, np.concatenate([part["depths"] for part in parts]))
    _write_splits(root, len(images))
    for index in range(len(seeds)):
        _part(root, index).unlink()


def _write_photos(root: Path, images: NDArray[np.uint8], depths: NDArray[np.float32]) -> None:
    """HDF5 with MATLAB's header before it, and with its order of axes."""
    import h5py  # type: ignore[import-untyped, unused-ignore]

    arrays: dict[str, NDArray[Any]] = {
        "images": images.transpose(0, 3, 2, 1),
        "rawDepths": depths.transpose(0, 2, 1),
        "depths": np.maximum(depths, 0.7).transpose(0, 2, 1),
    }
    buffer = io.BytesIO()  # HDF5 itself does not survive a full disk
    with h5py.File(buffer, "w", userblock_size=len(_USER_BLOCK)) as file:
        for name, values in arrays.items():
            options = {"chunks": (1, *values.shape[1:]), "compression": "gzip", "track_times": False}
            file.create_dataset(name, data=values, **options)
    buffer.getbuffer()[: len(_USER_BLOCK)] = _USER_BLOCK
    write_file(root / _FILE_NAME, buffer.getvalue())


def _write_splits(root: Path, photos: int) -> None:
    numbers = np.arange(1, photos + 1, dtype=np.float64)[:, None]
    test = np.arange(photos) % _TEST_EVERY == _TEST_EVERY - 1
    arrays = {"trainNdxs": numbers[~test], "testNdxs": numbers[test]}
    write_file(root / "splits.mat", encode_matlab_arrays(arrays))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    """More photos at the end of the file: one without depth, and one that is in no split."""
    import h5py

    with h5py.File(root / _FILE_NAME, "r") as file:
        images, depths = file["images"][()].transpose(0, 3, 2, 1), file["rawDepths"][()].transpose(0, 2, 1)
    empty = np.zeros((1, *scene.depth.shape), np.float32)
    more = np.stack([scene.image, scene.image])
    _write_photos(root, np.concatenate([images, more]), np.concatenate([depths, empty, empty + 1]))
    _write_splits(root, len(images) + 1)
    return {f"{len(images) + 1:04d}": "empty depth", f"{len(images) + 2:04d}": "missing partner"}


WRITER = Writer(_write_views, _write_traps, _write_lists, ("room",), VIEWS)
