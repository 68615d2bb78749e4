"""Random images with exact depth: one view of a scene, or several from a moving camera."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.cameras import Location, camera_path
from datasets_prep.render.lighting import flashlight
from datasets_prep.render.raycast import Camera, cast
from datasets_prep.render.shading import shade
from datasets_prep.render.worlds import random_location


@dataclass(frozen=True, slots=True)
class Scene:
    """One rendered view.

    Attributes:
        image: (H, W, 3) uint8 sRGB.
        depth: (H, W) float32 planar depth in metres, inf in the sky.
        sky: (H, W) bool.
        intrinsics: (3, 3) float64 in pixels, for pixel centres at whole numbers.
        world_to_camera: (4, 4) float64; camera axes are right, down, forward; the world has z up.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    sky: NDArray[np.bool_]
    intrinsics: NDArray[np.float64]
    world_to_camera: NDArray[np.float64]


def render_scene(seed: int, height: int = 384, width: int = 512, kinds: Sequence[str] = ()) -> Scene:
    """Render one random scene; deterministic for a `seed` and size on one kind of machine.

    The image has `height` × `width` pixels; `kinds` are keys of `worlds.KINDS` to choose from, empty for
    `worlds.VARIED`. Raises KeyError if there is no such kind.
    """
    return render_views(seed, 1, height, width, kinds)[0]


def render_views(
    seed: int, count: int, height: int = 384, width: int = 512, kinds: Sequence[str] = ()
) -> list[Scene]:
    """Render `count` views of one random scene from a moving camera; other arguments as in `render_scene`."""
    rng = np.random.default_rng(seed)
    location = random_location(rng, kinds)
    return [_view(location, camera, height, width, rng) for camera in camera_path(location, rng, count)]


def _view(location: Location, camera: Camera, height: int, width: int, rng: np.random.Generator) -> Scene:
    world = location.world
    depth, owner = cast(world, camera, height, width)
    sky, intrinsics = ~np.isfinite(depth), camera.intrinsics(height, width)
    if not sky.all():
        distance = float(np.median(depth[~sky]))
        # Beyond it, half of the view would lose more than 0.7 of its light.
        world = replace(world, haze=min(world.haze, 1.2 / distance))
        if location.flash:
            world = replace(world, light=flashlight(world.light, camera.position, distance))
    image = shade(world, camera, depth, owner, rng)
    return Scene(image, depth, sky, intrinsics, camera.world_to_camera())
