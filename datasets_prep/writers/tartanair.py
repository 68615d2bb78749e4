"""Files in the layout of TartanAir V1; the format's facts are in `sources.tartanair`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from datasets_prep.formats.maps import encode_npy
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.sources.tartanair import SEGMENTATION_OF_DOME
from datasets_prep.writers.base import VIEWS, Pair, Writer, write_lines, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_SKY_METRES = 10000.0
# The archives unpack to a doubled environment folder.
_IMAGE = "{parts[0]}/{folder}/image_left/{stem}_left.png"
_DEPTH = "{parts[0]}/{folder}/depth_left/{stem}_left_depth.npy"


def _depth(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres as TartanAir stores them: every value fits half precision, sky is 10,000."""
    metres = np.where(scene.sky, np.float32(_SKY_METRES), scene.depth)
    return metres.astype(np.float16).astype(np.float32)


_PAIR = Pair(_IMAGE, encode_png, _DEPTH, encode_npy, _depth)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    environment = f"rendered{index:03d}"
    trajectory = f"{environment}/{('Easy', 'Hard')[index % 2]}/P{index // 2 % 2:03d}"
    for number, scene in enumerate(views):
        labels = np.where(scene.sky, SEGMENTATION_OF_DOME, 1).astype(np.uint8)
        files = {**_PAIR.files(scene), _DEPTH.replace("depth", "seg"): encode_npy(labels)}
        write_sample(root, f"{trajectory}/{number:06d}", files)
    poses = [" ".join(f"{value:.6f}" for value in _ned_pose(scene)) for scene in views]
    write_lines(root / environment / trajectory / "pose_left.txt", poses)


def _ned_pose(scene: Scene) -> list[float]:
    """Position and unit quaternion (x, y, z, w ≥ 0) of the camera in a frame of north, east, down.

    The world has z up: north = x, east = -y, down = -z. The camera's axes are forward, right, down there,
    which are columns 2, 0, 1 of a rotation whose columns are right, down, forward.
    """
    to_world = scene.world_to_camera[:3, :3].T
    position = -to_world @ scene.world_to_camera[:3, 3]
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ to_world[:, [2, 0, 1]]
    return [*(flip @ position), *Rotation.from_matrix(rotation).as_quat(canonical=True)]


_TRAPS = Traps("traps/Hard/P000/{number:06d}", _PAIR, (*UNUSABLE, "RGBA image"))
WRITER = Writer(
    _write_views, _TRAPS, kinds=("countryside", "facade", "facade", "hall", "street"), views=VIEWS
)
