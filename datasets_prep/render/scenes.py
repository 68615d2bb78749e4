"""Random pictures with exact depth: one view of a scene, or several from a moving camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.cameras import Stage, camera_path, random_camera
from datasets_prep.render.raycast import Camera, cast
from datasets_prep.render.shading import shade
from datasets_prep.render.worlds import random_stage


@dataclass(frozen=True, slots=True)
class Scene:
    """One rendered view.

    Attributes:
        image: (H, W, 3) uint8 sRGB.
        depth: (H, W) float32 planar depth in metres, inf in the sky.
        sky: (H, W) bool.
        intrinsics: (3, 3) float64 in pixels.
        world_to_camera: (4, 4) float64; camera axes are right, down, forward; the world has z up.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    sky: NDArray[np.bool_]
    intrinsics: NDArray[np.float64]
    world_to_camera: NDArray[np.float64]


def render_scene(seed: int, height: int = 384, width: int = 512, kinds: Sequence[str] = ()) -> Scene:
    """Render one random scene; the same for the same seed and size on the same kind of machine.

    Args:
        seed: decides everything.
        height, width: size of the picture.
        kinds: keys of `scenery.KINDS` to choose from; `scenery.VARIED` if empty.
    """
    rng = np.random.default_rng(seed)
    stage = random_stage(rng, kinds)
    return _view(stage, random_camera(stage, rng), height, width, rng)


def render_views(
    seed: int, count: int, height: int = 384, width: int = 512, kinds: Sequence[str] = ()
) -> list[Scene]:
    """Render `count` views of one random scene from a moving camera; arguments as for `render_scene`."""
    rng = np.random.default_rng(seed)
    stage = random_stage(rng, kinds)
    return [_view(stage, camera, height, width, rng) for camera in camera_path(stage, rng, count)]


def _view(stage: Stage, camera: Camera, height: int, width: int, rng: np.random.Generator) -> Scene:
    depth, owner = cast(stage.world, camera, height, width)
    image = shade(stage.world, camera, depth, owner, rng)
    return Scene(
        image, depth, ~np.isfinite(depth), camera.intrinsics(height, width), camera.world_to_camera()
    )
