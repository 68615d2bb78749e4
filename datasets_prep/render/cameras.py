"""Cameras in a random world: one view, or several from a moving camera."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.raycast import Camera, Range, Rng, World, cast
from datasets_prep.render.solids import upright_rotation


@dataclass(frozen=True, slots=True)
class Location:
    """A world and the places where a camera may stand in it.

    Attributes:
        world: everything that can be seen.
        x, y, height: ranges of the camera's position in metres.
        yaw, pitch: ranges of its direction in degrees; yaw 0 is +x, positive pitch looks down.
        step: metres between the views of a moving camera.
        focal: range of the focal length divided by the image's width.
        roll: standard deviation of the camera's roll in degrees.
        flash: whether the camera brings its own light.
    """

    world: World
    x: Range
    y: Range
    height: Range
    yaw: Range
    pitch: Range
    step: float
    focal: Range = (0.6, 1.15)
    roll: float = 5.0
    flash: bool = False


def random_camera(location: Location, rng: Rng) -> Camera:
    """A camera at `location`, drawn from `rng`, that is not inside or right in front of a solid."""
    focal = rng.uniform(*location.focal)
    camera = _draw_camera(location, rng, focal)
    for _ in range(60):
        if _sees_enough(location.world, camera):
            break
        camera = _draw_camera(location, rng, focal)
    return camera


def camera_path(location: Location, rng: Rng, count: int) -> list[Camera]:
    """`count` views of a camera that moves at `location`, drawn from `rng`, without collisions.

    Between views it moves about a step and turns a little.
    """
    cameras = [random_camera(location, rng)]
    while len(cameras) < count:
        last = cameras[-1]
        moved = last
        for attempt in range(12):
            turn = math.radians(rng.normal(0, 4 + 4 * attempt))
            away = math.radians(rng.uniform(-70, 70)) + (math.pi if attempt % 3 == 2 else 0)
            moved = _moved(last, turn, away, location.step * rng.uniform(0.6, 1.2))
            if _sees_enough(location.world, moved):
                break
        cameras.append(moved)
    return cameras


def _draw_camera(location: Location, rng: Rng, focal: float) -> Camera:
    x, y, z = (rng.uniform(*r) for r in (location.x, location.y, location.height))
    yaw, pitch = (math.radians(rng.uniform(*r)) for r in (location.yaw, location.pitch))
    return Camera((x, y, z), _camera_rotation(yaw, pitch, math.radians(rng.normal(0, location.roll))), focal)


def _camera_rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """World → camera rotation, angles in radians; its rows are the right, down and forward axes in the world.

    `level` is perpendicular to `forward` and horizontal. A roll turns the right axis in the plane of `level`
    and forward × level, which points down; down is then forward × right, so the axes are right-handed.
    """
    forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), -math.sin(pitch)])
    level = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    below = np.cross(forward, level)
    right = math.cos(roll) * level + math.sin(roll) * below
    return np.stack([right, np.cross(forward, right), forward])


def _moved(camera: Camera, turn: float, away: float, step: float) -> Camera:
    """Turned by `turn` radians about the vertical, moved by `step` metres, `away` radians from its view."""
    forward = camera.rotation[2]
    heading = math.atan2(forward[1], forward[0]) + away
    x, y, z = camera.position
    position = (x + step * math.cos(heading), y + step * math.sin(heading), z)
    return replace(camera, position=position, rotation=camera.rotation @ upright_rotation(-turn))


def _sees_enough(world: World, camera: Camera) -> bool:
    """Whether the view is open and not empty: nothing very near, several things, not all sky."""
    depth, owner = cast(world, camera, 12, 16)
    hit = np.isfinite(depth)
    if hit.mean() < 0.3 or depth.min() < 0.45 or np.unique(owner).size < 5:
        return False
    return bool(np.median(depth[hit]) > 1.2 and np.quantile(depth[hit], 0.9) > 1.6 * depth.min())
