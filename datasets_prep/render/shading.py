"""From the surfaces that a camera hits to an image: materials, light, shadows, haze, sky, lens and film.

Shading is deferred: the visible points are sorted by solid, so that the points of each solid are one slice.
For shadows and ambient occlusion the points are grouped in blocks of neighbours with a bounding sphere; a
solid is then tested only against the blocks that it can affect.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.raycast import Camera, Components, Light, Rays, Solid, World, column, dot, inner
from datasets_prep.render.textures import Array, albedo, grain, sample_noise

_BLOCK = 128
_MIDDLE_GREY = 0.36
_NEARBY = 2.5  # a solid darkens its surroundings up to this multiple of its size


@dataclass(frozen=True, slots=True)
class Surfaces:
    """The visible points, sorted by solid; N of them.

    Attributes:
        pixels: (N,) flat pixel numbers.
        points, normals: (3, N) float32 in the world, metres.
        depth: (N,) float32 metres.
        view: (3, N) float32 unit vectors towards the camera.
        colour: (3, N) float32 linear RGB reflectance.
        properties: (5, N) float32: grain, its period, specular, gloss and emission of `Material`.
    """

    pixels: NDArray[np.intp]
    points: Array
    normals: Array
    depth: Array
    view: Array
    colour: Array
    properties: Array


@dataclass(frozen=True, slots=True)
class Blocks:
    """The same points in B blocks of neighbours, the last block padded with its last point.

    Attributes:
        points, normals: (3, B, _BLOCK) float32.
        lifted: points moved off their surface, so that it does not shadow itself.
        centres, radii: (3, B) and (B,) float32 bounding spheres, metres.
    """

    points: Array
    normals: Array
    lifted: Array
    centres: Array
    radii: Array

    @classmethod
    def of(cls, surfaces: Surfaces) -> "Blocks":
        """Cut the points of `surfaces` into blocks.

        A depth in float32 is wrong by about 1e-7 of itself, seen under a small angle by more; so the lift
        grows with the distance: 6 mm at 10 m.
        """
        lift = np.float32(2e-3) + np.float32(4e-4) * surfaces.depth
        raised = surfaces.points + surfaces.normals * lift
        points, normals, lifted = map(_in_blocks, (surfaces.points, surfaces.normals, raised))
        low, high = points.min(axis=2), points.max(axis=2)
        radii = np.sqrt(inner(high - low, high - low)) / 2
        return cls(points, normals, lifted, (low + high) / 2, radii)


def shade(
    world: World, camera: Camera, depth: Array, owner: NDArray[np.int16], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Render the image of the surfaces that `raycast.cast` found.

    Args:
        world: as given to `cast`.
        camera: as given to `cast`.
        depth: (H, W) float32 metres, as returned by `cast`.
        owner: (H, W) int16, as returned by `cast`.
        rng: generator of the sensor's noise.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    rays = Rays.of(camera, *depth.shape)
    linear = _sky_colours(world, camera, rays)
    if (owner >= 0).any():
        surfaces = _surfaces(world, camera, rays, depth, owner)
        lit = _illuminate(world, surfaces)
        horizon = column(world.sky.horizon)
        # Beer and Lambert: haze takes the same share of what is left on every metre, so light decays
        # exponentially; what is missing is replaced by the airlight, the colour of the horizon.
        clear = np.exp(-np.float32(world.haze) * surfaces.depth)
        linear.reshape(-1, 3)[surfaces.pixels] = (horizon + clear * (lit - horizon)).T
    return _develop(linear, rng)


def _in_blocks(values: Array) -> Array:
    """(…, N) → (…, B, _BLOCK)."""
    missing = -values.shape[-1] % _BLOCK
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], mode="edge")
    return padded.reshape(*values.shape[:-1], -1, _BLOCK)


def _surfaces(world: World, camera: Camera, rays: Rays, depth: Array, owner: NDArray[np.int16]) -> Surfaces:
    """Gather position, normal and colour of every visible point."""
    width = depth.shape[1]
    flat = owner.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]
    numbers, starts = np.unique(flat[order], return_index=True)
    ends = np.append(starts[1:], order.size)

    distance = depth.ravel()[order]
    ray = _directions(camera, rays.x[order % width], rays.y[order // width])
    length = np.sqrt(inner(ray, ray))
    points = ray * distance + column(camera.position)
    pixel = distance * (rays.x[1] - rays.x[0])
    normals, colour = np.empty_like(ray), np.empty_like(ray)
    u, v, footprint = (np.empty_like(distance) for _ in range(3))
    properties = np.empty((5, order.size), np.float32)
    for number, start, end in zip(numbers, starts, ends, strict=True):
        solid, here = world.solids[number], slice(start, end)
        turn = solid.rotation.astype(np.float32)
        moved = points[:, here] - column(solid.position)
        local = np.stack([dot(turn[:, i], moved) for i in range(3)])
        face, normal = solid.faces(local)
        if solid.hollow:
            normal = -normal
        for axis in range(3):
            normals[axis, here] = dot(turn[axis], normal)
        facing = np.abs(inner(normals[:, here], ray[:, here])) / length[here]
        # A pixel covers depth / focal metres across, and 1 / cos of that along a tilted surface; one number
        # for both is their geometric mean.
        footprint[here] = pixel[here] / np.sqrt(np.maximum(facing, np.float32(0.02)))
        seen_faces = np.flatnonzero(np.bincount(face))
        for painted in seen_faces:
            m = solid.materials[painted % len(solid.materials)]
            finish = m.grain, m.grain_period, m.specular, m.gloss, m.emission
            # Most solids show one face, and slices are far faster than lists of numbers.
            inside = slice(None) if seen_faces.size == 1 else np.flatnonzero(face == painted)
            among = here if seen_faces.size == 1 else start + inside
            u[among], v[among] = _surface_coordinates(solid, int(painted), local[:, inside])
            colour[:, among] = albedo(m, u[among], v[among], footprint[among])
            properties[:, among] = np.array(finish, np.float32)[:, None]
    strength, period = properties[:2]
    colour *= 1 + 2 * strength * (grain(u, v, footprint, period) - np.float32(0.5))
    return Surfaces(order, points, normals, distance, -ray / length, colour, properties)


def _directions(camera: Camera, x: Array, y: Array) -> Array:
    """Ray directions (x, y, 1) in the world, (3, …) float32."""
    turn = camera.rotation.T.astype(np.float32)
    return np.stack([turn[i, 0] * x + (turn[i, 1] * y + turn[i, 2]) for i in range(3)])


def _surface_coordinates(solid: Solid, face: int, points: Array) -> tuple[Array, Array]:
    """Coordinates in metres along a face: horizontal and upward on walls, the plane itself on floors."""
    x, y, z = points
    if face >= 2 * len(solid.slabs):  # around the quadric's axis
        radius = np.float32(max(solid.high[0], solid.high[1]))
        return np.arctan2(y, x) * radius, z
    nx, ny, nz = solid.slabs[face // 2].normal
    flat = math.hypot(nx, ny)
    if flat < 1e-6:
        return x, y
    along = dot((-ny / flat, nx / flat, 0.0), points)
    up = dot((-nx * nz / flat, -ny * nz / flat, flat), points)
    return along, up


def _illuminate(world: World, surfaces: Surfaces) -> Array:
    """Light that every visible point sends to the camera, (3, N) linear RGB.

    Lambert's cosine law for direct light; hemisphere lighting, a blend of the light from above and below by
    the normal's z, for indirect light; and a Blinn-Phong highlight (Blinn 1977), cos^n of the angle between
    the normal and the vector halfway between light and view.
    """
    light = world.light
    if light.lamp is None:
        towards = np.broadcast_to(column(light.direction), surfaces.points.shape)
        reach = np.ones_like(surfaces.depth)
    else:
        offset = column(light.lamp) - surfaces.points
        squared = inner(offset, offset)
        towards = offset / np.sqrt(squared)
        # The inverse square law, softened near the lamp: walls close to it would be overexposed.
        reach = 1 / (0.3 + squared / 12)
    facing = inner(surfaces.normals, towards)
    shadow, openness = _occlusion(world, surfaces, facing > 0)
    arriving = shadow * reach
    specular, gloss, emission = surfaces.properties[2:]
    halfway = towards + surfaces.view
    length = np.sqrt(inner(halfway, halfway)) + np.float32(1e-6)
    mirror = np.minimum(inner(surfaces.normals, halfway) / length, 1)
    # cos^n ≈ exp(n (cos - 1)), as ln cos ≈ cos - 1 near the peak, and exp is several times as fast as power.
    highlight = specular * arriving * np.exp((mirror - 1) * gloss) * (facing > 0)
    direct = np.maximum(facing, 0) * arriving
    up = (surfaces.normals[2] + 1) / 2
    lit = np.empty_like(surfaces.colour)
    colours = zip(light.colour, light.from_above, light.from_below, strict=True)
    for channel, (sun, above, below) in enumerate(colours):
        ambient = (np.float32(below) + up * np.float32(above - below)) * openness
        received = ambient + np.float32(sun) * direct + emission
        lit[channel] = surfaces.colour[channel] * received + np.float32(sun) * highlight
    return lit


def _occlusion(world: World, surfaces: Surfaces, lit: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Direct light that arrives (0 or 1), and the share of indirect light that other solids leave, (N,) each.

    Each solid hides some of the hemisphere; the light that passes several is a product of what each lets
    through, written as exp of a sum: order does not matter, and it never becomes negative.

    Args:
        world: all solids and the light.
        surfaces: the visible points.
        lit: (N,) whether the surface faces the light; elsewhere shadows make no difference.
    """
    blocks = Blocks.of(surfaces)
    shadow = _in_blocks(lit)
    hidden = np.zeros(shadow.shape, np.float32)
    casters = [solid for solid in world.solids if solid.casts_shadow and not solid.hollow]
    if casters:
        spheres = [_bounding_sphere(solid) for solid in casters]
        centres = np.array([centre for centre, _ in spheres], np.float32).T[:, :, None]
        radii = np.array([radius for _, radius in spheres], np.float32)[:, None]
        offset = centres - blocks.centres[:, None]
        shadowed = _may_shadow(world.light, offset, radii, blocks) & shadow.any(axis=1)
        sizes = np.array([_size(solid) for solid in casters], np.float32)[:, None]
        darkened = inner(offset, offset) < (_NEARBY * sizes + blocks.radii) ** 2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for solid, (centre, _), far, near in zip(casters, spheres, shadowed, darkened, strict=True):
                if far.any():
                    _cast_shadow(world.light, solid, blocks, np.flatnonzero(far), shadow)
                if near.any():
                    _darken(centre, _size(solid), blocks, np.flatnonzero(near), hidden)
    count = surfaces.depth.size
    return shadow.ravel()[:count].astype(np.float32), np.exp(-hidden).ravel()[:count]


def _bounding_sphere(solid: Solid) -> tuple[NDArray[np.float64], float]:
    low, high = np.asarray(solid.low), np.asarray(solid.high)
    centre = solid.rotation @ ((low + high) / 2) + np.asarray(solid.position)
    return centre, float(np.linalg.norm(high - low) / 2)


def _size(solid: Solid) -> float:
    """Half the edge of a cube of the same volume."""
    return float(np.prod(np.asarray(solid.high) - np.asarray(solid.low)) ** (1 / 3)) / 2


def _may_shadow(light: Light, offset: Array, radii: Array, blocks: Blocks) -> NDArray[np.bool_]:
    """(S, B): whether the way from a block to the light passes a solid's bounding sphere.

    All rays of a block lie in a capsule around the ray from its centre; it meets the sphere if the sphere's
    centre is nearer to that ray than the two radii. The nearest point of the ray is at the projection of
    the offset on it, not behind its start and not beyond the lamp.

    Args:
        light: sun or lamp.
        offset: (3, S, B) from the blocks' centres to the solids' centres.
        radii: (S, 1) of the solids.
        blocks: the visible points.
    """
    if light.lamp is None:
        along = column(light.direction)[:, None]
        reach = np.maximum(inner(offset, along), 0)
    else:
        along = (column(light.lamp) - blocks.centres)[:, None]
        reach = np.clip(inner(offset, along) / inner(along, along), 0, 1)
    miss = offset - along * reach
    return inner(miss, miss) < (radii + blocks.radii) ** 2


def _cast_shadow(
    light: Light, solid: Solid, blocks: Blocks, chosen: NDArray[np.intp], shadow: NDArray[np.bool_]
) -> None:
    """In the chosen blocks of `shadow` (B, _BLOCK), True for light, clear the points that the solid shades.

    The shadow ray is parametrised so that the lamp is at 1 and the sun at infinity.
    """
    turn = solid.rotation.astype(np.float32)
    start = blocks.lifted[:, chosen]
    shifted = start - column(solid.position)[:, None]
    origin = [dot(turn[:, i], shifted) for i in range(3)]
    if light.lamp is None:
        direction: Components = [dot(turn[:, i], light.direction) for i in range(3)]
        limit = np.float32(np.inf)
    else:
        to_lamp = column(light.lamp)[:, None] - start
        direction = [dot(turn[:, i], to_lamp) for i in range(3)]
        limit = np.float32(1)
    entry, leave = solid.interval(origin, direction)
    shadow[chosen] &= ~((entry < leave) & (leave > 0) & (entry < limit))


def _darken(
    centre: NDArray[np.float64], size: float, blocks: Blocks, chosen: NDArray[np.intp], hidden: Array
) -> None:
    """In the chosen blocks of `hidden` (B, _BLOCK), add the share of their hemisphere that a ball hides.

    A ball of radius r at distance d whose direction has the cosine c to the normal hides c (r / d)² of the
    cosine-weighted hemisphere (the form factor of a sphere); 0.6 of it here, as most solids are slimmer. It
    fades to 0 at _NEARBY radii, so that blocks can be skipped. `towards` is c d, so `weight` divides by d³.
    """
    to_solid = centre.astype(np.float32)[:, None, None] - blocks.points[:, chosen]
    squared = inner(to_solid, to_solid)
    towards = np.maximum(inner(to_solid, blocks.normals[:, chosen]), 0)
    fade = np.maximum(1 - squared * np.float32((_NEARBY * size) ** -2), 0)
    weight = np.float32(0.6 * size * size) / (np.maximum(squared, np.float32(size * size)) * np.sqrt(squared))
    hidden[chosen] += towards * fade * weight


def _sky_colours(world: World, camera: Camera, rays: Rays) -> Array:
    """(H, W, 3) linear RGB of the sky in every direction: a gradient with clouds on a flat ceiling.

    A ray of elevation sine e meets a ceiling of height h at h / e times its horizontal direction; 0.12 is
    added to e, as clouds at the horizon would become infinitely dense.
    """
    sky = world.sky
    ray = _directions(camera, rays.x[None, :], rays.y[:, None])
    elevation = ray[2] / np.sqrt(inner(ray, ray))
    climb = np.sqrt(np.clip(elevation, 0, 1))
    horizon, zenith = np.array([sky.horizon, sky.zenith], np.float32)
    colours = horizon + climb[..., None] * (zenith - horizon)
    above = elevation > 0.01
    if sky.clouds and above.any():
        reach = 90 / (elevation[above] + np.float32(0.12))
        along, across = (ray[i][above] * reach + np.float32(sky.offset[i]) for i in range(2))
        density = sample_noise(along, across) + np.float32(sky.clouds - 0.75)
        cover = np.clip(density * 5, 0, 1) * np.clip(elevation[above] * 6, 0, 1)
        colours[above] += cover[:, None] * (np.float32(1.05) - colours[above])
    return np.ascontiguousarray(colours, np.float32)


def _develop(linear: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Automatic exposure, lens blur, sensor noise and film curve: (H, W, 3) linear → uint8 sRGB.

    The noise has a constant part, of reading the sensor, and one that grows with the square root of the
    light, as the number of photons is Poisson distributed.
    """
    exposure = np.clip(_MIDDLE_GREY / max(float(linear[::4, ::4].mean()), 1e-3), 0.5, 2.0)
    blurred: Array = cv2.GaussianBlur(linear * np.float32(exposure), (3, 3), 0.6)
    # Equal in the three channels, as cameras suppress colour noise; and drawn in a third of the time.
    noise: Array = rng.standard_normal((*blurred.shape[:2], 1), np.float32)
    blurred += noise * (np.float32(0.002) + np.float32(0.012) * np.sqrt(blurred))
    curve = _film_curve()
    index = np.clip(blurred * np.float32(curve.size / 4), 0, curve.size - 1).astype(np.uint16)
    return curve[index]


@lru_cache(maxsize=1)
def _film_curve() -> NDArray[np.uint8]:
    """Table of linear light in [0, 4] → 8-bit sRGB.

    Linear up to 0.6, then an exponential shoulder that tends to 1 with a continuous slope, as film compresses
    highlights; then the transfer function of sRGB (IEC 61966-2-1).
    """
    light = np.linspace(0, 4, 8192)
    shoulder = np.where(light < 0.6, light, 0.6 + 0.4 * (1 - np.exp(-(light - 0.6) / 0.4)))
    encoded = np.where(shoulder < 0.0031308, 12.92 * shoulder, 1.055 * shoulder ** (1 / 2.4) - 0.055)
    return np.round(255 * np.clip(encoded, 0, 1)).astype(np.uint8)
