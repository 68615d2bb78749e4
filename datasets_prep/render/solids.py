"""The solids that things are built of, and flat ground."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.raycast import Quadric, Slab, Solid, Vector
from datasets_prep.render.textures import Material


def upright_rotation(angle: float) -> NDArray[np.float64]:
    """A rotation about the vertical, by radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _axis_along(direction: Vector) -> NDArray[np.float64]:
    """A rotation whose third axis is the given direction."""
    z = np.asarray(direction) / np.linalg.norm(direction)
    x = np.cross([0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def box(
    position: Vector, size: Vector, *materials: Material, yaw: float = 0.0, hollow: bool = False
) -> Solid:
    """A box that stands on `position`; faces in the order −x, +x, −y, +y, bottom, top."""
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    slabs = (Slab((1, 0, 0), -x, x), Slab((0, 1, 0), -y, y), Slab((0, 0, 1), 0.0, z))
    return Solid(position, upright_rotation(yaw), (-x, -y, 0), (x, y, z), slabs, None, materials, hollow)


def ellipsoid(centre: Vector, radii: Vector, material: Material, yaw: float = 0.0) -> Solid:
    """An ellipsoid about `centre`."""
    a, b, c = radii
    quadric = Quadric(1 / a**2, 1 / b**2, 1 / c**2, 1.0)
    return Solid(centre, upright_rotation(yaw), (-a, -b, -c), radii, (), quadric, (material,))


def ball(centre: Vector, radius: float, material: Material) -> Solid:
    """A ball about `centre`."""
    return ellipsoid(centre, (radius, radius, radius), material)


def dome(position: Vector, radius: float, height: float, material: Material) -> Solid:
    """The upper half of an ellipsoid, standing on `position`."""
    quadric = Quadric(1 / radius**2, 1 / radius**2, 1 / height**2, 1.0)
    slab = Slab((0, 0, 1), 0.0, 2 * height)
    bounds = (-radius, -radius, 0.0), (radius, radius, height)
    return Solid(position, np.eye(3), *bounds, (slab,), quadric, (material,))


def cylinder(start: Vector, end: Vector, radius: float, material: Material) -> Solid:
    """A cylinder about the line from `start` to `end`."""
    axis = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
    length = math.dist(start, end)
    quadric = Quadric(1 / radius**2, 1 / radius**2, 0.0, 1.0)
    slab = Slab((0, 0, 1), 0.0, length)
    bounds = (-radius, -radius, 0.0), (radius, radius, length)
    return Solid(start, _axis_along(axis), *bounds, (slab,), quadric, (material,))


def cone(position: Vector, radius: float, height: float, material: Material) -> Solid:
    """An upright cone that stands on `position`; its frame's origin is the tip."""
    tip = (position[0], position[1], position[2] + height)
    quadric = Quadric(1 / radius**2, 1 / radius**2, -1 / height**2, 0.0)
    slab = Slab((0, 0, 1), -height, 0.0)
    bounds = (-radius, -radius, -height), (radius, radius, 0.0)
    return Solid(tip, np.eye(3), *bounds, (slab,), quadric, (material,))


def gable(position: Vector, size: Vector, roof: Material, wall: Material, yaw: float) -> Solid:
    """A ridged roof along x over a rectangle."""
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
    """A plain of 1.2 km; what lies beyond is hidden by haze or hills."""
    return replace(box((0, 0, -1), (1200, 1200, 1), material), casts_shadow=False)


def patch(position: Vector, size: Vector, material: Material, yaw: float = 0.0) -> Solid:
    """Something flat on the ground that throws no shadow worth computing."""
    return replace(box(position, size, material, yaw=yaw), casts_shadow=False)
