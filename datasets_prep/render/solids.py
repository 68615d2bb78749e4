"""The solids that things are built of, and flat ground; sizes and positions (x, y, z) in metres."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.raycast import Quadric, Slab, Solid, Vector
from datasets_prep.render.textures import Material


def upright_rotation(angle: float) -> NDArray[np.float64]:
    """The (3, 3) rotation about the vertical by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _axis_along(direction: Vector) -> NDArray[np.float64]:
    """A (3, 3) rotation whose third column is the given direction.

    The others are its cross products with any vector that is not nearly parallel to it.
    """
    z = np.asarray(direction) / np.linalg.norm(direction)
    x = np.cross([0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def box(
    position: Vector, size: Vector, *materials: Material, yaw: float = 0.0, hollow: bool = False
) -> Solid:
    """A box, standing.

    Args:
        position: centre of its bottom.
        size: lengths along x, y and z.
        materials: one for all faces, or six: -x, +x, -y, +y, bottom, top.
        yaw: rotation about the vertical, radians.
        hollow: whether it is seen from inside.
    """
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    slabs = (Slab((1, 0, 0), -x, x), Slab((0, 1, 0), -y, y), Slab((0, 0, 1), 0.0, z))
    return Solid(position, upright_rotation(yaw), (-x, -y, 0), (x, y, z), slabs, None, materials, hollow)


def ellipsoid(centre: Vector, radii: Vector, material: Material, yaw: float = 0.0) -> Solid:
    """An ellipsoid of one `material` about `centre` with half-axes `radii`, turned by `yaw` radians."""
    a, b, c = radii
    quadric = Quadric(1 / a**2, 1 / b**2, 1 / c**2, 1.0)
    return Solid(centre, upright_rotation(yaw), (-a, -b, -c), radii, (), quadric, (material,))


def ball(centre: Vector, radius: float, material: Material) -> Solid:
    """A ball of one `material` about `centre` with that `radius`."""
    return ellipsoid(centre, (radius, radius, radius), material)


def dome(position: Vector, radius: float, height: float, material: Material) -> Solid:
    """The upper half of an ellipsoid of one `material`, `radius` and `height`, standing on `position`."""
    quadric = Quadric(1 / radius**2, 1 / radius**2, 1 / height**2, 1.0)
    slab = Slab((0, 0, 1), 0.0, 2 * height)
    bounds = (-radius, -radius, 0.0), (radius, radius, height)
    return Solid(position, np.eye(3), *bounds, (slab,), quadric, (material,))


def cylinder(start: Vector, end: Vector, radius: float, material: Material) -> Solid:
    """A cylinder of one `material` and `radius` about the line from `start` to `end`."""
    axis = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
    length = math.dist(start, end)
    quadric = Quadric(1 / radius**2, 1 / radius**2, 0.0, 1.0)
    slab = Slab((0, 0, 1), 0.0, length)
    bounds = (-radius, -radius, 0.0), (radius, radius, length)
    return Solid(start, _axis_along(axis), *bounds, (slab,), quadric, (material,))


def cone(position: Vector, radius: float, height: float, material: Material) -> Solid:
    """An upright cone of one `material`, base `radius` and `height`, standing on `position`.

    The origin of its frame is the tip, where x² + y² ≤ (radius / height)² z² has no constant term.
    """
    tip = (position[0], position[1], position[2] + height)
    quadric = Quadric(1 / radius**2, 1 / radius**2, -1 / height**2, 0.0)
    slab = Slab((0, 0, 1), -height, 0.0)
    bounds = (-radius, -radius, -height), (radius, radius, 0.0)
    return Solid(tip, np.eye(3), *bounds, (slab,), quadric, (material,))


def gable(position: Vector, size: Vector, roof: Material, wall: Material, yaw: float) -> Solid:
    """A roof with its ridge along x.

    Its slopes go from (y, 0) to (0, z), so their unit normals are (z, y) / sqrt(y² + z²).

    Args:
        position: centre of its bottom.
        size: lengths along x, y and z.
        roof: material of the slopes.
        wall: material of the ends.
        yaw: rotation about the vertical, radians.
    """
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    norm = math.hypot(y, z)
    side = (z / norm, y / norm)
    slabs = (
        Slab((1, 0, 0), -x, x),
        Slab((0, side[0], side[1]), -math.inf, y * z / norm),
        Slab((0, -side[0], side[1]), -math.inf, y * z / norm),
        Slab((0, 0, 1), 0.0, math.inf),
    )
    materials = (wall, wall, roof, roof, roof, roof, wall, wall)
    return Solid(position, upright_rotation(yaw), (-x, -y, 0), (x, y, z), slabs, None, materials)


def ground(material: Material) -> Solid:
    """A plain of 1.2 km of one `material`; haze or hills hide what lies beyond."""
    return replace(box((0, 0, -1), (1200, 1200, 1), material), casts_shadow=False)


def patch(position: Vector, size: Vector, material: Material, yaw: float = 0.0) -> Solid:
    """A `box` that casts no shadow; `position`, `size`, `material` and `yaw` as there."""
    return replace(box(position, size, material, yaw=yaw), casts_shadow=False)
