"""Rendered scenes with exact depth, and whole miniature datasets in the layouts of the real ones.

`render_scene` and `render_views` give images with depth; `write_dataset` lays them out as a published
dataset, byte format by byte format, so that readers, ingest and training run on true files without a
download. Each scene of a dataset depends on nothing but its index (`write_scene`), so several processes can
write one dataset together, and the bytes do not depend on who writes which scene.

Where the real sets have defects, `write_traps` adds them on purpose.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from datasets_prep.errors import UserError
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers import WRITERS
from datasets_prep.writers.base import VIEWS

__all__ = ["VIEWS", "WRITERS", "Scene", "render_scene", "render_views"]
__all__ += ["write_dataset", "write_lists", "write_scene", "write_traps", "writing_dataset"]


def write_dataset(
    name: str,
    root: Path,
    scenes: int,
    seed: int = 0,
    height: int = 384,
    width: int = 512,
    traps: bool = False,
) -> None:
    """Write a miniature of a published dataset.

    Args:
        name: a key of `WRITERS`.
        root: dataset root; created if needed.
        scenes: number of scenes; some datasets, such as BlendedMVS, have `VIEWS` samples of each.
        seed: scenes of different seeds, and of different datasets, differ.
        height: of the images in pixels; ReDWeb mixes in portraits.
        width: of the images in pixels.
        traps: whether to add the defects of the real set, see `write_traps`.

    Raises:
        UserError: if no dataset has that name.
    """
    for _ in writing_dataset(name, root, scenes, seed, height, width):
        pass
    if traps:
        write_traps(name, root, seed, height, width)


def writing_dataset(
    name: str, root: Path, scenes: int, seed: int = 0, height: int = 384, width: int = 512
) -> Iterator[int]:
    """As `write_dataset`, without traps; yields the number of scenes that are written, 0 first.

    Raises:
        UserError: if no dataset has that name.
    """
    if name not in WRITERS:
        raise UserError(f"unknown dataset {name!r}; there are: {', '.join(sorted(WRITERS))}")
    return _writing(name, root, scenes, seed, height, width)


def _writing(name: str, root: Path, scenes: int, seed: int, height: int, width: int) -> Iterator[int]:
    for index in range(scenes):
        yield index
        write_scene(name, root, index, seed, height, width)
    write_lists(name, root, scenes, seed)
    yield scenes


def write_scene(
    name: str, root: Path, index: int, seed: int = 0, height: int = 384, width: int = 512
) -> None:
    """Write all files of the scene number `index`, independent of every other; else as `write_dataset`."""
    WRITERS[name].write_scene(root, index, scene_seed(name, seed, index), height, width)


def write_lists(name: str, root: Path, scenes: int, seed: int = 0) -> None:
    """Write the list files of a dataset's official split, if any; arguments as in `write_dataset`."""
    write = WRITERS[name].lists
    if write is not None:
        write(root, [scene_seed(name, seed, index) for index in range(scenes)])


def write_traps(name: str, root: Path, seed: int = 0, height: int = 384, width: int = 512) -> dict[str, str]:
    """Add samples with the defects of the real set, one each; arguments as in `write_dataset`.

    Returns sample id → its defect: `missing partner` and `equal points` (left out of the listing), `grey
    image` and `RGBA image` (must be read like any other), else one that makes the sample unusable, such as
    `truncated image`, `truncated depth`, `mismatched size` or `empty depth`.
    """
    return WRITERS[name].write_traps(root, scene_seed(name, seed, -1), height, width)


def scene_seed(name: str, seed: int, index: int) -> int:
    """Seed of the scene number `index` of dataset `name` under `seed`, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{name}/{seed}/{index}".encode()).digest()[:8], "little")
