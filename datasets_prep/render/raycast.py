"""Ray casting of convex solids in NumPy: images with exact depth, without a GPU.

Every solid is a quadric cut by slabs, in a frame of its own; this one class makes boxes, balls, cylinders,
cones, domes and roofs. A solid is cast only over the rectangle of pixels that its bounding box covers, so a
scene of a hundred solids costs little more than its few large ones. Measure: `benchmarks/rendering.py`.

Frames: the world is in metres with z up. The camera looks along its +z with x to the right and y down; a ray
has direction (x, y, 1) in camera coordinates, so the parameter of a hit *is* its planar depth.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.textures import Array, Colour, Material

Vector = tuple[float, float, float]
Range = tuple[float, float]
Rng = np.random.Generator
Components = Sequence[Any] | Array

_NEAR = 0.05
# A box's corners, as 0 for the lower and 1 for the upper bound on each axis, and its edges.
_CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
_EDGES = [
    (a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1
]


@dataclass(frozen=True, slots=True)
class Slab:
    """The points p between two parallel planes: `low` ≤ `normal` · p ≤ `high`, in the solid's frame."""

    normal: Vector
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quadric:
    """The points with `a` x² + `b` y² + `c` z² ≤ `limit`; with c < 0 the lower half of a double cone."""

    a: float
    b: float
    c: float
    limit: float


@dataclass(frozen=True, slots=True)
class Solid:
    """A convex solid: one optional quadric cut by slabs, in a frame that is rotated and moved.

    Attributes:
        position: origin of the solid's frame in the world, metres.
        rotation: (3, 3) float64, columns are the frame's axes in the world.
        low, high: bounding box in the solid's frame, metres.
        slabs: planes that cut it.
        quadric: its curved surface, or None.
        materials: one for all faces, or one a face: two for each slab (low, high), then the quadric.
        hollow: whether it is seen from inside, like a room.
        casts_shadow: whether it can keep light from others.
    """

    position: Vector
    rotation: NDArray[np.float64]
    low: Vector
    high: Vector
    slabs: tuple[Slab, ...]
    quadric: Quadric | None
    materials: tuple[Material, ...]
    hollow: bool = False
    casts_shadow: bool = True

    def interval(self, origin: Components, direction: Components) -> tuple[Array, Array]:
        """Where rays are inside the solid.

        The slab method (Kay and Kajiya 1986): a ray is inside a convex solid from the last entry into one of
        its half-spaces to the first exit. A ray parallel to a slab divides by 0 to ±inf, which min and max
        treat correctly: always inside or never.

        Args:
            origin: three broadcastable float32 arrays or numbers, in the solid's frame.
            direction: of the rays, likewise.

        Returns:
            Ray parameters of entry and exit; entry > exit (or NaN) for a miss.
        """
        entry, leave = np.array(-np.inf, np.float32), np.array(np.inf, np.float32)
        for slab in self.slabs:
            start, slope = dot(slab.normal, origin), dot(slab.normal, direction)
            inverse = 1 / slope
            first, second = (slab.low - start) * inverse, (slab.high - start) * inverse
            entry = np.maximum(entry, np.minimum(first, second))
            leave = np.minimum(leave, np.maximum(first, second))
        if self.quadric is not None:
            first, second = _quadric_interval(self.quadric, origin, direction)
            entry, leave = np.maximum(entry, first), np.minimum(leave, second)
        return entry, leave

    def faces(self, points: Array) -> tuple[NDArray[np.intp], Array]:
        """The face on which each surface point lies, and the outward normal there.

        Rounding puts a point beside every face, so the nearest one is taken. The distance to the quadric
        f(p) = limit is that of first order (Taubin 1991), |f(p) - limit| / |∇f|, with ∇f = 2 (a x, b y, c z).

        Args:
            points: (3, N) float32 in the solid's frame.

        Returns:
            (N,) face numbers in the order of `materials`, and (3, N) float32 unit normals.
        """
        distances, normals = [], []
        for slab in self.slabs:
            along = dot(slab.normal, points)
            distances += [np.abs(along - slab.low), np.abs(along - slab.high)]
            axis = np.broadcast_to(column(slab.normal), points.shape)
            normals += [-axis, axis]
        if self.quadric is not None:
            q = self.quadric
            gradient = points * column((q.a, q.b, q.c))
            length = np.sqrt(inner(gradient, gradient)) + np.float32(1e-12)
            distances.append(np.abs(inner(gradient, points) - np.float32(q.limit)) / (2 * length))
            normals.append(gradient / length)
        if len(distances) == 1:
            return np.zeros(points.shape[1], np.intp), normals[0]
        face = np.argmin(np.stack(np.broadcast_arrays(*distances)), axis=0)
        normal = np.empty_like(points)
        for number in np.flatnonzero(np.bincount(face)):
            here = face == number
            normal[:, here] = normals[number][:, here]
        return face, normal


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera at `position` in the world (metres); `rotation` is (3, 3) float64, world → camera.

    `focal` is the focal length divided by the image's width.
    """

    position: Vector
    rotation: NDArray[np.float64]
    focal: float

    def intrinsics(self, height: int, width: int) -> NDArray[np.float64]:
        """The (3, 3) matrix K of a `height` × `width` image in pixels, for pixel centres at whole numbers."""
        focal = self.focal * width
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])

    def world_to_camera(self) -> NDArray[np.float64]:
        """The (4, 4) rigid motion from world to camera coordinates."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = -self.rotation @ np.asarray(self.position)
        return matrix


@dataclass(frozen=True, slots=True)
class Light:
    """Direct light of the sun or a lamp, and the indirect light around it.

    Attributes:
        direction: unit vector towards the sun; ignored if there is a lamp.
        lamp: position of the lamp in metres, or None for the sun.
        colour: of the direct light.
        from_above, from_below: colours of the indirect light on surfaces that face up and down.
    """

    direction: Vector
    lamp: Vector | None
    colour: Colour
    from_above: Colour
    from_below: Colour


@dataclass(frozen=True, slots=True)
class Sky:
    """The background.

    Attributes:
        zenith, horizon: colours of the gradient.
        clouds: share of the sky that is covered, 0 to 1.
        offset: of the clouds in the noise, in texels.
    """

    zenith: Colour
    horizon: Colour
    clouds: float
    offset: tuple[float, float]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that can be seen.

    Attributes:
        solids: all things, in any order.
        light: the direct and indirect light.
        sky: shown where rays hit nothing.
        haze: share of the light that is lost to haze a metre; haze has the colour of the horizon.
    """

    solids: list[Solid]
    light: Light
    sky: Sky
    haze: float = 0.0


@dataclass(frozen=True, slots=True)
class Rays:
    """Ray directions (`x`, `y`, 1) of a camera's pixels: (W,) x of the columns and (H,) y of the rows."""

    x: Array
    y: Array

    @classmethod
    def of(cls, camera: Camera, height: int, width: int) -> "Rays":
        """Rays of `camera` through the pixel centres of a `height` × `width` image."""
        focal = camera.focal * width
        x = (np.arange(width) - (width - 1) / 2) / focal
        y = (np.arange(height) - (height - 1) / 2) / focal
        return cls(x.astype(np.float32), y.astype(np.float32))


def cast(world: World, camera: Camera, height: int, width: int) -> tuple[Array, NDArray[np.int16]]:
    """Find the nearest solid of `world` in every pixel of a `height` × `width` image of `camera`.

    Returns (H, W) float32 planar depth in metres, inf where nothing is hit, and (H, W) int16 numbers of
    solids, -1 where nothing is hit.
    """
    rays = Rays.of(camera, height, width)
    depth = np.full((height, width), np.inf, np.float32)
    owner = np.full((height, width), -1, np.int16)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for number, corners in enumerate(_corners_seen(world.solids, camera)):
            window = _screen_window(corners, rays)
            if window is None:
                continue
            solid, (rows, columns) = world.solids[number], window
            origin, to_local = _local_camera(solid, camera)
            x, y = rays.x[columns][None, :], rays.y[rows][:, None]
            direction = [to_local[i, 0] * x + (to_local[i, 1] * y + to_local[i, 2]) for i in range(3)]
            entry, leave = solid.interval(origin, direction)
            hit_at = leave if solid.hollow else entry
            hit = (entry <= leave) & (hit_at > _NEAR) & (hit_at < depth[rows, columns])
            depth[rows, columns][hit] = hit_at[hit]
            owner[rows, columns][hit] = number
    return depth, owner


def column(values: Sequence[float]) -> Array:
    """Three `values` as a (3, 1) float32 array."""
    return np.array(values, np.float32)[:, None]


def inner(a: Array, b: Array) -> Array:
    """Scalar products of `a` and `b` along their first axis, of three."""
    product = a[0] * b[0]
    product += a[1] * b[1]
    product += a[2] * b[2]
    return product


def dot(vector: Sequence[float] | Array, components: Components) -> Array:
    """`vector` · `components`, three numbers by three arrays; skips zeros, as most normals are axes."""
    total: Any = np.float32(0)
    for factor, component in zip(vector, components, strict=True):
        if factor:
            total = total + np.float32(factor) * component
    return np.asarray(total, np.float32)


def _quadric_interval(q: Quadric, origin: Components, direction: Components) -> tuple[Array, Array]:
    """Where rays are inside a quadric; entry is inf for a miss.

    Inserting p = o + t d gives A t² + 2 B t + C = limit. Its roots lie around the middle of the chord,
    t = -B / A, where the linear term vanishes: ± sqrt((limit - f(middle)) / A). The textbook discriminant
    B² - A C would subtract two numbers of the size of the distance squared, and lose a wire 50 m away.
    """
    factors = (q.a, q.b, q.c)
    a = sum(np.float32(f) * d * d for f, d in zip(factors, direction, strict=True) if f)
    b = sum(np.float32(f) * o * d for f, o, d in zip(factors, origin, direction, strict=True) if f)
    middle = -b / a
    closest = [o + middle * d for o, d in zip(origin, direction, strict=True)]
    rest = sum(np.float32(f) * p * p for f, p in zip(factors, closest, strict=True) if f)
    square = (np.float32(q.limit) - rest) / a
    half = np.sqrt(np.maximum(square, 0))
    first = np.where(square >= 0, middle - half, np.float32(np.inf))
    second = middle + half
    if q.c >= 0:
        return first, second
    # A ray steeper than the cone's side (A < 0) is inside the double cone before the first root and after the
    # second, once in each half: in the lower half after the second if it goes down, else before the first.
    steep, down = a < 0, np.asarray(direction[2]) < 0
    inside = np.float32(np.inf)
    steep_entry = np.where(down, middle + half, -inside)
    steep_leave = np.where(down, inside, middle - half)
    return np.where(steep, steep_entry, first), np.where(steep, steep_leave, second)


def _local_camera(solid: Solid, camera: Camera) -> tuple[Array, Array]:
    """The camera's position, and its rotation, in the solid's frame."""
    origin = solid.rotation.T @ (np.asarray(camera.position) - np.asarray(solid.position))
    return origin.astype(np.float32), (solid.rotation.T @ camera.rotation.T).astype(np.float32)


def _corners_seen(solids: Sequence[Solid], camera: Camera) -> NDArray[np.float64]:
    """(S, 8, 3) corners of all bounding boxes in camera coordinates."""
    bounds = np.array([(solid.low, solid.high) for solid in solids])
    corners = np.stack([bounds[:, _CORNERS[:, axis], axis] for axis in range(3)], axis=2)
    rotations = np.array([solid.rotation for solid in solids])
    positions = np.array([solid.position for solid in solids]) - np.asarray(camera.position)
    world = corners @ rotations.transpose(0, 2, 1) + positions[:, None]
    seen: NDArray[np.float64] = world @ camera.rotation.T
    return seen


def _screen_window(seen: NDArray[np.float64], rays: Rays) -> tuple[slice, slice] | None:
    """Rows and columns that a box can cover, given its (8, 3) corners, or None if it is out of sight.

    A corner behind the camera has no projection. So each edge that crosses the near plane z = _NEAR is
    clipped there (Sutherland and Hodgman 1974), and the crossing takes the place of the hidden corner.
    """
    in_front = seen[:, 2] > _NEAR
    if not in_front.any():
        return None
    points = seen[in_front]
    if not in_front.all():
        crossing = [(seen[a], seen[b]) for a, b in _EDGES if in_front[a] != in_front[b]]
        start, end = (np.array(side) for side in zip(*crossing, strict=True))
        share = (_NEAR - start[:, 2]) / (end[:, 2] - start[:, 2])
        points = np.concatenate([points, start + share[:, None] * (end - start)])
    slices = []
    for axis, grid in ((1, rays.y), (0, rays.x)):
        projected = points[:, axis] / points[:, 2]
        first = int(np.searchsorted(grid, projected.min() - 1e-6))
        last = int(np.searchsorted(grid, projected.max() + 1e-6, side="right"))
        if first >= last:
            return None
        slices.append(slice(first, last))
    return slices[0], slices[1]
