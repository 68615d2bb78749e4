"""Random worlds to be rendered: streets, countryside, rooms, halls, plazas and things on a floor.

Things have the sizes they have in life, stand on the ground and repeat with distance, so that pictures carry
the cues that depth is learnt from: perspective, ground contact, familiar size, texture gradient, occlusion,
shading, shadows, haze. Everything is drawn from the generator that is passed in; nothing else is random.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datasets_prep.rendering import Camera, Light, Quadric, Sky, Slab, Solid, Vector, World, cast
from datasets_prep.textures import Colour, Material

Rng = np.random.Generator
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Stage:
    """A world and where a camera may stand in it.

    Attributes:
        world: what there is.
        x, y, height: ranges of the camera's position in metres.
        yaw, pitch: ranges of its direction in degrees; yaw 0 is +x, positive pitch looks down.
        step: metres between the views of a moving camera.
    """

    world: World
    x: Range
    y: Range
    height: Range
    yaw: Range
    pitch: Range
    step: float


def random_stage(rng: Rng, kinds: Sequence[str] = ()) -> Stage:
    """A world of a random kind, one of `kinds` or of all."""
    names = list(kinds or KINDS)
    return KINDS[names[rng.integers(len(names))]](rng)


def random_camera(stage: Stage, rng: Rng) -> Camera:
    """A camera on the stage that is not inside or right in front of something."""
    focal = float(rng.uniform(0.6, 1.15))
    camera = _draw_camera(stage, rng, focal)
    for _ in range(20):
        if _sees_enough(stage.world, camera):
            break
        camera = _draw_camera(stage, rng, focal)
    return camera


def camera_path(stage: Stage, rng: Rng, count: int) -> list[Camera]:
    """A camera that moves by about `stage.step` from view to view and turns a little, without collisions."""
    cameras = [random_camera(stage, rng)]
    while len(cameras) < count:
        last = cameras[-1]
        moved = last
        for attempt in range(12):
            turn = math.radians(rng.normal(0, 4 + 4 * attempt))
            away = math.radians(rng.uniform(-70, 70)) + (math.pi if attempt % 3 == 2 else 0)
            moved = _moved(last, turn, away, stage.step * rng.uniform(0.6, 1.2))
            if _sees_enough(stage.world, moved):
                break
        cameras.append(moved)
    return cameras


def _draw_camera(stage: Stage, rng: Rng, focal: float) -> Camera:
    x, y, z = (float(rng.uniform(*r)) for r in (stage.x, stage.y, stage.height))
    yaw, pitch = (math.radians(rng.uniform(*r)) for r in (stage.yaw, stage.pitch))
    return Camera((x, y, z), _camera_rotation(yaw, pitch, math.radians(rng.normal(0, 1.5))), focal)


def _camera_rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), -math.sin(pitch)])
    level = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    below = np.cross(forward, level)
    right = math.cos(roll) * level + math.sin(roll) * below
    return np.stack([right, np.cross(forward, right), forward])


def _moved(camera: Camera, turn: float, away: float, step: float) -> Camera:
    """The camera turned about the vertical and moved horizontally, `away` from its direction of view."""
    forward = camera.rotation[2]
    heading = math.atan2(forward[1], forward[0]) + away
    x, y, z = camera.position
    position = (x + step * math.cos(heading), y + step * math.sin(heading), z)
    return replace(camera, position=position, rotation=camera.rotation @ _yaw(-turn))


def _sees_enough(world: World, camera: Camera) -> bool:
    """Whether the view is open and not empty: nothing very near, several things, not all sky."""
    depth, owner = cast(world, camera, 12, 16)
    hit = np.isfinite(depth)
    if hit.mean() < 0.3 or depth.min() < 0.45 or np.unique(owner).size < 5:
        return False
    return bool(np.median(depth[hit]) > 1.2 and np.quantile(depth[hit], 0.9) > 1.6 * depth.min())


# Solids


def _yaw(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _axis_along(direction: Vector) -> NDArray[np.float64]:
    """A rotation whose third axis is the given direction."""
    z = np.asarray(direction) / np.linalg.norm(direction)
    x = np.cross([0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _box(
    position: Vector, size: Vector, *materials: Material, yaw: float = 0.0, hollow: bool = False
) -> Solid:
    """A box that stands on `position`; faces in the order −x, +x, −y, +y, bottom, top."""
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    slabs = (Slab((1, 0, 0), -x, x), Slab((0, 1, 0), -y, y), Slab((0, 0, 1), 0.0, z))
    return Solid(position, _yaw(yaw), (-x, -y, 0), (x, y, z), slabs, None, materials, hollow)


def _ellipsoid(centre: Vector, radii: Vector, material: Material, yaw: float = 0.0) -> Solid:
    a, b, c = radii
    quadric = Quadric(1 / a**2, 1 / b**2, 1 / c**2, 1.0)
    return Solid(centre, _yaw(yaw), (-a, -b, -c), radii, (), quadric, (material,))


def _ball(centre: Vector, radius: float, material: Material) -> Solid:
    return _ellipsoid(centre, (radius, radius, radius), material)


def _dome(position: Vector, radius: float, height: float, material: Material) -> Solid:
    """The upper half of an ellipsoid, standing on `position`."""
    quadric = Quadric(1 / radius**2, 1 / radius**2, 1 / height**2, 1.0)
    slab = Slab((0, 0, 1), 0.0, 2 * height)
    bounds = (-radius, -radius, 0.0), (radius, radius, height)
    return Solid(position, np.eye(3), *bounds, (slab,), quadric, (material,))


def _cylinder(start: Vector, end: Vector, radius: float, material: Material) -> Solid:
    axis = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
    length = math.dist(start, end)
    quadric = Quadric(1 / radius**2, 1 / radius**2, 0.0, 1.0)
    slab = Slab((0, 0, 1), 0.0, length)
    bounds = (-radius, -radius, 0.0), (radius, radius, length)
    return Solid(start, _axis_along(axis), *bounds, (slab,), quadric, (material,))


def _cone(position: Vector, radius: float, height: float, material: Material) -> Solid:
    """An upright cone that stands on `position`; its frame's origin is the tip."""
    tip = (position[0], position[1], position[2] + height)
    quadric = Quadric(1 / radius**2, 1 / radius**2, -1 / height**2, 0.0)
    slab = Slab((0, 0, 1), -height, 0.0)
    bounds = (-radius, -radius, -height), (radius, radius, 0.0)
    return Solid(tip, np.eye(3), *bounds, (slab,), quadric, (material,))


def _gable(position: Vector, size: Vector, roof: Material, wall: Material, yaw: float) -> Solid:
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
    return Solid(position, _yaw(yaw), (-x, -y, 0), (x, y, z), slabs, None, materials)


# Colours, materials, light


def _colour(
    rng: Rng, value: Range = (0.15, 0.7), saturation: Range = (0.1, 0.7), hue: float = -1.0
) -> Colour:
    """A random linear colour; `hue` in [0, 1) fixes the hue up to a little variation.

    Where it is not fixed, most are of the earth and the sky, as paint and stone are, and a few of any hue.
    """
    if hue < 0:
        hue = (rng.uniform(0.0, 0.16), rng.uniform(0.5, 0.66), rng.random())[rng.choice(3, p=(0.6, 0.2, 0.2))]
        saturation = (saturation[0] * 0.6, saturation[1] * 0.85)
    h = (hue + rng.normal(0, 0.02)) * 6
    v, s = rng.uniform(*value), rng.uniform(*saturation)
    channels = [v * (1 - s * min(max(min((n + h) % 6, 4 - (n + h) % 6), 0), 1)) for n in (5, 3, 1)]
    return (channels[0], channels[1], channels[2])


def _paint(rng: Rng, hue: float = -1.0) -> Material:
    """Smooth and more or less shiny."""
    specular, gloss = float(rng.uniform(0.05, 0.6)), float(rng.uniform(20, 150))
    return Material(_colour(rng, hue=hue), grain=0.12, grain_period=1.0, specular=specular, gloss=gloss)


def _patterned(rng: Rng, period: Range, *patterns: str) -> Material:
    base, second = _colour(rng), _colour(rng)
    return Material(
        base,
        second,
        pattern=str(rng.choice(patterns)),
        period=float(rng.uniform(*period)),
        grain=float(rng.uniform(0.1, 0.5)),
        grain_period=float(rng.uniform(0.3, 3)),
        specular=float(rng.uniform(0, 0.25)),
        gloss=float(rng.uniform(10, 80)),
    )


def _any_material(rng: Rng, period: Range) -> Material:
    if rng.random() < 0.45:
        return _paint(rng)
    return _patterned(
        rng, period, "checker", "stripes", "bands", "dots", "bricks", "planks", "mottled", "tiles"
    )


def _wood(rng: Rng, period: float = 0.6) -> Material:
    base = _colour(rng, (0.2, 0.55), (0.4, 0.65), hue=0.08)
    dark = (base[0] * 0.45, base[1] * 0.4, base[2] * 0.35)
    return Material(base, dark, "planks", period, grain=0.35, grain_period=0.8, specular=0.1, gloss=30)


def _metal(rng: Rng) -> Material:
    return Material(_colour(rng, (0.1, 0.4), (0, 0.15)), grain=0.15, specular=0.5, gloss=60)


def _grass(rng: Rng) -> Material:
    base = _colour(rng, (0.15, 0.4), (0.5, 0.8), hue=rng.uniform(0.18, 0.3))
    second = _colour(rng, (0.2, 0.45), (0.4, 0.7), hue=rng.uniform(0.1, 0.25))
    return Material(
        base, second, "mottled", float(rng.uniform(4, 15)), grain=0.7, grain_period=0.9, specular=0
    )


def _leaves(rng: Rng) -> Material:
    base = _colour(rng, (0.08, 0.3), (0.5, 0.8), hue=rng.uniform(0.17, 0.33))
    dark = (base[0] * 0.4, base[1] * 0.45, base[2] * 0.4)
    return Material(base, dark, "mottled", 0.8, grain=0.9, grain_period=0.5, specular=0)


def _asphalt(rng: Rng) -> Material:
    grey = float(rng.uniform(0.06, 0.2))
    return Material((grey, grey, grey * 1.05), grain=0.35, grain_period=1.2, specular=0.03)


def _facade(rng: Rng) -> Material:
    wall = _colour(rng, (0.25, 0.75), (0.05, 0.5), hue=rng.choice([0.03, 0.07, 0.1, 0.13, 0.55]))
    glass = _colour(rng, (0.03, 0.25), (0.1, 0.5), hue=0.58)
    return Material(
        wall, glass, "windows", float(rng.uniform(2.2, 3.4)), grain=0.3, grain_period=3, specular=0.1
    )


def _daylight(rng: Rng) -> tuple[Light, Sky, float]:
    """Sun, sky and the haze's share a metre for an outdoor world."""
    azimuth, height = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(18, 70))
    direction = (
        math.cos(azimuth) * math.cos(height),
        math.sin(azimuth) * math.cos(height),
        math.sin(height),
    )
    overcast = float(rng.random() < 0.2)
    warmth = max(0.0, 1 - height / 0.9) * 0.5
    power = (1.7 + 0.5 * rng.random()) * (1 - 0.8 * overcast)
    colour = (power, power * (1 - 0.25 * warmth), power * (1 - 0.6 * warmth))
    blue = float(rng.uniform(0.25, 0.5)) * (1 - overcast)
    zenith = (0.55 - 0.9 * blue, 0.6 - 0.5 * blue, 0.72)
    horizon = (0.8 + 0.1 * warmth, 0.82 - 0.05 * warmth, 0.86 - 0.25 * warmth)
    clouds = 1.0 if overcast else float(rng.choice([0.0, 0.2, 0.35, 0.5]))
    sky = Sky(zenith, horizon, clouds, (float(rng.uniform(0, 1024)), float(rng.uniform(0, 1024))))
    fill = 0.3 + 0.45 * overcast
    light = Light(
        direction,
        None,
        colour,
        (fill * 0.85, fill * 0.95, fill * 1.15),
        (fill * 0.35, fill * 0.33, fill * 0.28),
    )
    haze = float(rng.choice([0.0006, 0.002, 0.005, 0.012], p=[0.3, 0.35, 0.25, 0.1]))
    return light, sky, haze


def _lamplight(rng: Rng, lamp: Vector, reach: float) -> tuple[Light, Sky]:
    """A lamp for an indoor world whose power suits a room of that radius."""
    warmth = rng.uniform(0, 0.35)
    power = 0.75 * (0.3 + reach**2 / 12) ** 0.75
    colour = (power, power * (1 - 0.3 * warmth), power * (1 - 0.7 * warmth))
    fill = float(rng.uniform(0.22, 0.4))
    tint = (fill, fill * (1 - 0.12 * warmth), fill * (1 - 0.25 * warmth))
    below = (tint[0] * 0.7, tint[1] * 0.68, tint[2] * 0.65)
    dark = (0.0, 0.0, 0.0)
    return Light((0.0, 0.0, 1.0), lamp, colour, tint, below), Sky(dark, dark, 0.0, (0.0, 0.0))


def _ground(material: Material) -> Solid:
    """A plain of 1.2 km; what lies beyond is hidden by haze or hills."""
    return replace(_box((0, 0, -1), (1200, 1200, 1), material), casts_shadow=False)


def _patch(position: Vector, size: Vector, material: Material, yaw: float = 0.0) -> Solid:
    """Something flat on the ground that throws no shadow worth computing."""
    return replace(_box(position, size, material, yaw=yaw), casts_shadow=False)


# Things


def _tree(rng: Rng, x: float, y: float) -> list[Solid]:
    height = float(rng.uniform(3, 10))
    leaves, bark = _leaves(rng), Material(_colour(rng, (0.08, 0.25), (0.3, 0.6), hue=0.07), grain=0.6)
    if rng.random() < 0.4:
        trunk = _cylinder((x, y, 0), (x, y, height * 0.3), 0.03 * height, bark)
        tiers = [
            _cone((x, y, height * low), height * radius, height * tall, leaves)
            for low, radius, tall in ((0.18, 0.26, 0.5), (0.42, 0.19, 0.45), (0.65, 0.12, 0.4))
        ]
        return [trunk, *tiers]
    trunk = _cylinder((x, y, 0), (x, y, height * 0.6), 0.03 * height, bark)
    crowns = []
    for _ in range(rng.integers(2, 5)):
        shift = rng.normal(0, 0.12 * height, 3)
        radius = height * rng.uniform(0.16, 0.28)
        centre = (x + float(shift[0]), y + float(shift[1]), 0.72 * height + 0.6 * float(shift[2]))
        crowns.append(_ellipsoid(centre, (radius, radius, 0.85 * radius), leaves, yaw=rng.uniform(0, 3)))
    return [trunk, *crowns]


def _car(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    body, glass = _paint(rng), Material((0.03, 0.04, 0.05), grain=0.0, specular=0.7, gloss=120)
    tyre = Material((0.02, 0.02, 0.02), grain=0.2)
    length, width = float(rng.uniform(3.8, 4.8)), float(rng.uniform(1.7, 1.95))
    turn = _yaw(yaw)

    def at(along: float, across: float, up: float) -> Vector:
        shift = turn @ np.array([along, across, 0.0])
        return (x + float(shift[0]), y + float(shift[1]), up)

    solids = [
        _box(at(0, 0, 0.28), (length, width, 0.58), body, yaw=yaw),
        _box(
            at(-0.05 * length, 0, 0.86),
            (0.5 * length, 0.88 * width, 0.55),
            glass, glass, glass, glass, body, body,
            yaw=yaw,
        ),
    ]  # fmt: skip
    for along in (-0.31 * length, 0.31 * length):
        start, end = (at(along, side * (width / 2 + 0.02), 0.33) for side in (-1, 1))
        solids.append(_cylinder(start, end, 0.33, tyre))
    return solids


def _person(rng: Rng, x: float, y: float) -> list[Solid]:
    height = float(rng.uniform(1.5, 1.9))
    skin = Material(_colour(rng, (0.25, 0.7), (0.35, 0.5), hue=0.06), grain=0.1)
    top, legs = _any_material(rng, (0.08, 0.3)), _paint(rng)
    return [
        _cylinder((x, y, 0), (x, y, 0.48 * height), 0.14, legs),
        _ellipsoid((x, y, 0.66 * height), (0.22, 0.22, 0.24 * height), top),
        _ball((x, y, 0.93 * height), 0.07 * height, skin),
    ]


def _house(rng: Rng, x: float, y: float, size: Vector, yaw: float = 0.0) -> list[Solid]:
    """A box with windows, flat or with a ridged roof."""
    wall, roof = _facade(rng), _patterned(rng, (0.3, 0.9), "bricks", "tiles", "bands")
    solids = [_box((x, y, 0), size, wall, wall, wall, wall, roof, roof, yaw=yaw)]
    if rng.random() < 0.5 and size[2] < 14:
        rise = size[1] * float(rng.uniform(0.25, 0.5))
        gable_wall = replace(wall, pattern="plain")
        solids.append(_gable((x, y, size[2]), (size[0], size[1], rise), roof, gable_wall, yaw))
    return solids


def _power_line(rng: Rng, points: list[tuple[float, float]], height: float) -> list[Solid]:
    """Poles with a crossbar and wires between them."""
    material = _wood(rng) if rng.random() < 0.5 else _metal(rng)
    wire = Material((0.02, 0.02, 0.02), grain=0)
    solids = []
    for x, y in points:
        solids.append(_cylinder((x, y, 0), (x, y, height), 0.11, material))
        solids.append(_cylinder((x, y - 0.9, height - 0.5), (x, y + 0.9, height - 0.5), 0.05, material))
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        for across in (-0.8, 0.8):
            sag = ((x0 + x1) / 2, (y0 + y1) / 2 + across, height - 1.1)
            ends = (x0, y0 + across, height - 0.5), (x1, y1 + across, height - 0.5)
            solids += [_cylinder(end, sag, 0.02, wire) for end in ends]
    return solids


def _fence(rng: Rng, x0: float, x1: float, y: float) -> list[Solid]:
    material = _wood(rng)
    height = float(rng.uniform(0.9, 1.5))
    spacing = float(rng.uniform(2, 3.5))
    posts = [
        _cylinder((float(x), y, 0), (float(x), y, height), 0.06, material)
        for x in np.arange(x0, x1 + 0.1, spacing)
    ]
    rails = [
        _cylinder((x0, y, height * share), (x1, y, height * share), 0.035, material) for share in (0.45, 0.85)
    ]
    return [*posts, *rails]


def _hills(rng: Rng, material: Material) -> list[Solid]:
    solids = []
    for _ in range(rng.integers(4, 10)):
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(150, 450)
        wide, tall = float(rng.uniform(60, 140)), float(rng.uniform(12, 45))
        x, y = distance * math.cos(angle), distance * math.sin(angle)
        hill = _ellipsoid((x, y, -0.2 * tall), (wide, wide * float(rng.uniform(0.5, 1)), tall), material)
        solids.append(replace(hill, casts_shadow=False))
    return solids


def _table(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    length, width, height = (
        float(rng.uniform(0.9, 1.8)),
        float(rng.uniform(0.6, 0.9)),
        float(rng.uniform(0.5, 0.78)),
    )
    wood = _wood(rng)
    solids = [_box((x, y, height - 0.04), (length, width, 0.04), wood, yaw=yaw)]
    for along in (-0.45, 0.45):
        for across in (-0.42, 0.42):
            shift = _yaw(yaw) @ np.array([along * length, across * width, 0])
            foot = (x + float(shift[0]), y + float(shift[1]), 0.0)
            solids.append(_cylinder(foot, (foot[0], foot[1], height - 0.04), 0.03, wood))
    for _ in range(rng.integers(1, 5)):
        shift = _yaw(yaw) @ np.array([rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.35, 0.35) * width, 0])
        solids.append(
            _thing(rng, (x + float(shift[0]), y + float(shift[1]), height), float(rng.uniform(0.05, 0.14)))
        )
    return solids


def _chair(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    material = _wood(rng) if rng.random() < 0.6 else _paint(rng)
    turn = _yaw(yaw)

    def at(along: float, across: float, up: float) -> Vector:
        shift = turn @ np.array([along, across, 0.0])
        return (x + float(shift[0]), y + float(shift[1]), up)

    seat = _box(at(0, 0, 0.42), (0.44, 0.44, 0.05), material, yaw=yaw)
    back = _box(at(-0.2, 0, 0.47), (0.04, 0.42, 0.45), material, yaw=yaw)
    legs = [
        _cylinder(at(along, across, 0), at(along, across, 0.42), 0.022, material)
        for along in (-0.19, 0.19)
        for across in (-0.19, 0.19)
    ]
    return [seat, back, *legs]


def _shelf(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    """An open shelf 0.35 m deep with books; its back is at −x of its own frame."""
    wood = _wood(rng)
    width, height, boards = (
        float(rng.uniform(0.7, 1.6)),
        float(rng.uniform(0.9, 2.1)),
        int(rng.integers(3, 6)),
    )
    turn = _yaw(yaw)

    def at(along: float, across: float, up: float) -> Vector:
        shift = turn @ np.array([along, across, 0.0])
        return (x + float(shift[0]), y + float(shift[1]), up)

    solids = [_box(at(0, side * width / 2, 0), (0.35, 0.03, height), wood, yaw=yaw) for side in (-1.0, 1.0)]
    for level in range(boards):
        up = level * (height - 0.04) / (boards - 1)
        solids.append(_box(at(0, 0, up), (0.35, width, 0.03), wood, yaw=yaw))
        if level < boards - 1 and rng.random() < 0.8:
            books = _patterned(rng, (0.04, 0.1), "stripes")
            span = width * float(rng.uniform(0.3, 0.8))
            tall = (height / (boards - 1)) * float(rng.uniform(0.5, 0.8))
            side = float(rng.uniform(-0.5, 0.5)) * (width - span - 0.08)
            solids.append(_box(at(0.02, side, up + 0.03), (0.2, span, tall), books, yaw=yaw))
    return solids


def _sofa(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    cloth = replace(_any_material(rng, (0.05, 0.3)), specular=0.02)
    width = float(rng.uniform(1.2, 2.1))
    turn = _yaw(yaw)

    def at(along: float, across: float, up: float) -> Vector:
        shift = turn @ np.array([along, across, 0.0])
        return (x + float(shift[0]), y + float(shift[1]), up)

    return [
        _box(at(0, 0, 0.08), (0.85, width, 0.36), cloth, yaw=yaw),
        _box(at(-0.34, 0, 0.44), (0.18, width, 0.42), cloth, yaw=yaw),
        _box(at(0, -width / 2 + 0.09, 0.44), (0.85, 0.18, 0.2), cloth, yaw=yaw),
        _box(at(0, width / 2 - 0.09, 0.44), (0.85, 0.18, 0.2), cloth, yaw=yaw),
        _ellipsoid(at(-0.1, -width / 4, 0.58), (0.1, 0.2, 0.18), _any_material(rng, (0.05, 0.2)), yaw),
    ]


def _floor_lamp(rng: Rng, x: float, y: float) -> list[Solid]:
    metal, height = _metal(rng), float(rng.uniform(1.2, 1.8))
    shade = Material(_colour(rng, (0.6, 0.9), (0.05, 0.4)), grain=0.1, emission=0.5)
    return [
        _cylinder((x, y, 0), (x, y, 0.03), 0.15, metal),
        _cylinder((x, y, 0), (x, y, height), 0.015, metal),
        replace(_cone((x, y, height - 0.1), 0.2, 0.35, shade), casts_shadow=False),
    ]


def _thing(rng: Rng, position: Vector, size: float) -> Solid:
    """Any one solid of about that radius, standing on `position`."""
    x, y, z = position
    material = _any_material(rng, (0.15 * size, 0.8 * size))
    kind = rng.integers(7)
    stretch = float(rng.uniform(0.6, 1.8))
    yaw = float(rng.uniform(0, math.pi))
    if kind == 0:
        return _ball((x, y, z + size), size, material)
    if kind == 1:
        radii = (size, size * stretch, size * 0.7)
        return _ellipsoid((x, y, z + radii[2]), radii, material, yaw)
    if kind == 2:
        return _cylinder(position, (x, y, z + 1.8 * size * stretch), size * 0.8, material)
    if kind == 3:
        return _cone(position, size, 2 * size * stretch, material)
    if kind == 4:
        return _dome(position, size, size * stretch, material)
    if kind == 5:
        return _gable(position, (1.8 * size, 1.6 * size, size * stretch), material, material, yaw)
    return _box(position, (1.6 * size, 1.6 * size * stretch, 1.6 * size), material, yaw=yaw)


def _scattered(
    rng: Rng, count: int, x: Range, y: Range, apart: float, taken: list[tuple[float, float]] | None = None
) -> list[tuple[float, float]]:
    """Up to `count` random places, `apart` from each other and from those `taken`, which they join."""
    taken = [] if taken is None else taken
    places: list[tuple[float, float]] = []
    for _ in range(4 * count):
        place = (float(rng.uniform(*x)), float(rng.uniform(*y)))
        if len(places) < count and all(math.dist(place, other) >= apart for other in taken):
            places.append(place)
            taken.append(place)
    return places


# Worlds


def _street(rng: Rng) -> Stage:
    half = float(rng.uniform(3, 5))
    pavement = float(rng.uniform(1.5, 3.5))
    road = replace(_asphalt(rng), pattern="dashes", second=(0.75, 0.75, 0.7), period=2 * half)
    paving = _patterned(rng, (0.4, 1.0), "tiles", "bricks", "checker")
    solids = [_ground(_grass(rng) if rng.random() < 0.5 else _asphalt(rng))]
    # Markings run along a box's second axis, so the road is a box turned by a right angle.
    solids.append(_patch((150, 0, -0.02), (2 * half, 400, 0.025), road, yaw=math.pi / 2))
    for side in (-1, 1):
        y = side * (half + pavement / 2)
        solids.append(_patch((150, y, 0), (400, pavement, 0.13), paving))
        x = float(rng.uniform(-25, -10))
        while x < 140:
            length, depth = float(rng.uniform(7, 20)), float(rng.uniform(8, 16))
            set_back = float(rng.choice([0.0, 0.0, 1.5, 4.0]))
            tall = float(rng.uniform(4, 9) if rng.random() < 0.5 else rng.uniform(9, 26))
            place = side * (half + pavement + set_back + depth / 2)
            if rng.random() < 0.88:
                solids += _house(rng, x + length / 2, place, (length, depth, tall))
            x += length + float(rng.choice([0.0, 0.0, 2.0, 6.0]))
        for along in np.arange(rng.uniform(2, 8), 90, rng.uniform(12, 20)):
            solids += _tree(rng, float(along), side * (half + 0.4)) if rng.random() < 0.6 else []
        for along, _ in _scattered(rng, 4, (3, 60), (0, 0.1), 6):
            solids += _car(rng, along, side * (half - 1.1), 0 if side < 0 else math.pi)
        for along, beside in _scattered(rng, 4, (2.5, 30), (0.6, pavement), 1.0):
            solids += _person(rng, along, side * (half + beside))
    if rng.random() < 0.6:
        y = float(rng.choice([-1.0, 1.0])) * (half + 0.5)
        solids += _power_line(rng, [(x, y) for x in (-14.0, 12.0, 38.0, 64.0)], float(rng.uniform(6, 8)))
    for along, beside in _scattered(rng, 2, (12, 80), (-half + 2, half - 2), 9):
        solids += _car(rng, along, beside, 0 if beside < 0 else math.pi)
    light, sky, haze = _daylight(rng)
    world = World(solids, light, sky, haze)
    return Stage(world, (-3, 8), (-half - 1, half + 1), (1.2, 2.6), (-35, 35), (-6, 14), 0.7)


def _countryside(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    grass = _grass(rng)
    solids = [_ground(grass), *_hills(rng, replace(_leaves(rng), period=25.0, grain_period=15.0))]
    if rng.random() < 0.6:
        path = Material(_colour(rng, (0.3, 0.5), (0.2, 0.4), hue=0.09), grain=0.5, specular=0)
        yaw = float(rng.uniform(-0.5, 0.5))
        solids.append(_patch((60, float(rng.uniform(-6, 6)), -0.02), (160, 2.6, 0.025), path, yaw=yaw))
    for x, y in _scattered(rng, int(rng.integers(8, 20)), (5, 90), (-45, 45), 4, taken):
        solids += _tree(rng, x, y)
    for x, y in _scattered(rng, int(rng.integers(2, 8)), (3, 30), (-14, 14), 2, taken):
        radius = float(rng.uniform(0.2, 1.0))
        rock = Material(_colour(rng, (0.2, 0.5), (0, 0.2)), grain=0.8, grain_period=radius, specular=0)
        radii = (radius, radius * float(rng.uniform(0.6, 1.2)), radius * 0.7)
        solids.append(_ellipsoid((x, y, 0.2 * radius), radii, rock, yaw=float(rng.uniform(0, 3))))
    if rng.random() < 0.6:
        solids += _fence(
            rng, float(rng.uniform(-4, 3)), float(rng.uniform(22, 40)), float(rng.uniform(-9, 9))
        )
    if rng.random() < 0.6:
        x, y = float(rng.uniform(25, 70)), float(rng.uniform(-25, 25))
        size = (float(rng.uniform(8, 16)), float(rng.uniform(6, 10)), float(rng.uniform(3, 5)))
        solids += _house(rng, x, y, size, yaw=float(rng.uniform(0, math.pi)))
    if rng.random() < 0.5:
        y = float(rng.uniform(-14, 14))
        solids += _power_line(rng, [(x, y + 0.2 * x) for x in (-20.0, 10.0, 40.0, 70.0)], 7.5)
    if rng.random() < 0.5:
        straw = Material((0.55, 0.42, 0.16), (0.4, 0.28, 0.08), "stripes", 0.12, grain=0.6, grain_period=0.5)
        for x, y in _scattered(rng, 4, (7, 40), (-18, 18), 3, taken):
            solids.append(_cylinder((x, y - 0.6, 0.7), (x, y + 0.6, 0.7), 0.7, straw))
    for x, y in _scattered(rng, int(rng.integers(0, 4)), (5, 25), (-8, 8), 2, taken):
        solids += _person(rng, x, y)
    light, sky, haze = _daylight(rng)
    return Stage(World(solids, light, sky, haze), (-2, 4), (-4, 4), (1.2, 3.5), (-30, 30), (-4, 14), 0.7)


def _room(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    length, width = float(rng.uniform(3.5, 7.5)), float(rng.uniform(3, 6))
    height = float(rng.uniform(2.4, 3.2))
    plaster = Material(_colour(rng, (0.5, 0.85), (0.0, 0.35)), grain=0.08, grain_period=2, specular=0.02)
    wall = plaster
    if rng.random() < 0.4:
        second = (plaster.base[0] * 0.75, plaster.base[1] * 0.75, plaster.base[2] * 0.8)
        pattern = str(rng.choice(["stripes", "dots", "bricks", "tiles"]))
        wall = replace(plaster, second=second, pattern=pattern, period=float(rng.uniform(0.2, 0.7)))
    floor = (
        _wood(rng, 0.5) if rng.random() < 0.5 else _patterned(rng, (0.25, 0.6), "tiles", "checker", "mottled")
    )
    ceiling = Material(_colour(rng, (0.65, 0.9), (0, 0.1)), grain=0.05)
    size = (length, width, height)
    solids = [_box((0, 0, 0), size, wall, wall, wall, wall, floor, ceiling, hollow=True)]
    solids += _wall_fittings(rng, length, width, height)
    makers = [_table, _chair, _chair, _shelf, _sofa, _table, _shelf, _chair]
    for x, y in _scattered(
        rng, 7, (-length / 2 + 1.5, length / 2 - 0.6), (-width / 2 + 0.5, width / 2 - 0.5), 1.1, taken
    ):
        solids += makers[rng.integers(len(makers))](rng, x, y, float(rng.uniform(0, 2 * math.pi)))
    for side in (-1, 1):
        for place in _scattered(rng, 2, (-length / 2 + 1.2, length / 2 - 0.9), (0, 0.1), 2.0):
            solids += _shelf(rng, place[0], side * (width / 2 - 0.2), -side * math.pi / 2)
    corner = (length / 2 - 0.35, float(rng.choice([-1.0, 1.0])) * (width / 2 - 0.35))
    solids += _floor_lamp(rng, *corner)
    for x, y in _scattered(
        rng, 5, (-length / 2 + 1.2, length / 2 - 0.3), (-width / 2 + 0.3, width / 2 - 0.3), 0.6, taken
    ):
        solids.append(_thing(rng, (x, y, 0), float(rng.uniform(0.08, 0.28))))
    rug = _patterned(rng, (0.1, 0.5), "stripes", "checker", "dots", "mottled")
    solids.append(
        _patch((0.4, 0, 0), (length * 0.45, width * 0.45, 0.012), rug, yaw=float(rng.normal(0, 0.15)))
    )
    lamp = (float(rng.uniform(-0.25, 0.25)) * length, float(rng.uniform(-0.25, 0.25)) * width, height - 0.25)
    light, sky = _lamplight(rng, lamp, 0.5 * length)
    ranges = (-length / 2 + 0.3, -length / 2 + 1.3), (-width / 2 + 0.6, width / 2 - 0.6)
    return Stage(World(solids, light, sky), *ranges, (0.9, 1.8), (-38, 38), (0, 22), 0.15)


def _wall_fittings(rng: Rng, length: float, width: float, height: float) -> list[Solid]:
    """Pictures, windows, a door and skirting, flat on the walls."""
    frame, glass = _wood(rng), Material((0.75, 0.85, 1.0), grain=0.0, emission=float(rng.uniform(0.6, 1.3)))
    solids = []
    for side in (-1, 1):
        y = side * width / 2
        solids.append(_patch((0, y - side * 0.01, 0), (length, 0.02, 0.09), frame))
        for x, _ in _scattered(rng, 2, (-length / 2 + 1, length / 2 - 0.8), (0, 0.1), 1.4):
            wide, tall = float(rng.uniform(0.4, 1.0)), float(rng.uniform(0.4, 0.8))
            picture = _any_material(rng, (0.1, 0.5))
            solids.append(_patch((x, y, 1.35), (wide + 0.08, 0.05, tall + 0.08), frame))
            solids.append(_patch((x, y - side * 0.005, 1.39), (wide, 0.06, tall), picture))
    end = length / 2
    solids.append(_patch((end - 0.01, 0, 0), (0.02, width, 0.09), frame))
    across = float(rng.uniform(-0.25, 0.25)) * width
    if rng.random() < 0.6:
        wide, tall = float(rng.uniform(0.8, 1.6)), float(rng.uniform(0.9, 1.3))
        solids.append(_patch((end, across, 0.9), (0.08, wide + 0.14, tall + 0.14), frame))
        solids.append(_patch((end - 0.005, across, 0.97), (0.09, wide, tall), glass))
        solids.append(_patch((end - 0.03, across, 0.97), (0.05, 0.05, tall), frame))
    else:
        solids.append(_patch((end, across, 0), (0.1, 0.95, 2.1), frame))
        solids.append(_patch((end - 0.005, across, 0), (0.11, 0.83, 2.02), _paint(rng)))
    return solids


def _hall(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    length, width = float(rng.uniform(15, 40)), float(rng.uniform(6, 16))
    height = float(rng.uniform(3.5, 8))
    wall = _patterned(rng, (0.4, 2.0), "bricks", "tiles", "bands", "plain")
    floor = _patterned(rng, (0.5, 2.0), "tiles", "checker", "mottled", "plain")
    ceiling = _patterned(rng, (0.8, 2.0), "stripes", "bands")
    size = (length, width, height)
    solids = [_box((length / 2 - 3, 0, 0), size, wall, wall, wall, wall, floor, ceiling, hollow=True)]
    column = _paint(rng)
    round_columns, spacing = rng.random() < 0.5, float(rng.uniform(3, 5))
    for x in np.arange(1.5, length - 4, spacing):
        for y in (-0.28 * width, 0.28 * width):
            foot = (float(x), y, 0.0)
            if round_columns:
                solids.append(_cylinder(foot, (foot[0], y, height), 0.22, column))
            else:
                solids.append(_box(foot, (0.4, 0.4, height), column))
    pipe = _metal(rng)
    for y in rng.uniform(-0.45, 0.45, 2) * width:
        start, end = (-2.9, float(y), height - 0.4), (length - 3.1, float(y), height - 0.4)
        solids.append(_cylinder(start, end, 0.12, pipe))
    for x, y in _scattered(
        rng, int(rng.integers(8, 16)), (2, length - 5), (-0.45 * width, 0.45 * width), 1.8, taken
    ):
        side = float(rng.uniform(0.5, 1.3))
        crate, yaw = _wood(rng, side), float(rng.normal(0, 0.3))
        if rng.random() < 0.3:
            solids.append(
                _cylinder((x, y, 0), (x, y, 0.95), 0.32, _patterned(rng, (0.2, 0.6), "bands", "plain"))
            )
            continue
        for level in range(rng.integers(1, 4)):
            shift = float(rng.normal(0, 0.06))
            solids.append(_box((x + shift, y, level * side), (side, side, side), crate, yaw=yaw + shift))
    for x, y in _scattered(rng, 3, (3, 14), (-0.4 * width, 0.4 * width), 1.5, taken):
        solids += _person(rng, x, y)
    lamp = (float(rng.uniform(0.15, 0.5)) * length, float(rng.uniform(-0.2, 0.2)) * width, height - 0.3)
    light, sky = _lamplight(rng, lamp, 0.4 * length)
    return Stage(
        World(solids, light, sky),
        (-2.4, 1),
        (-0.35 * width, 0.35 * width),
        (1, 2.4),
        (-28, 28),
        (-4, 16),
        0.3,
    )


def _plaza(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    solids = [_ground(_patterned(rng, (0.8, 3), "tiles", "checker", "bricks", "mottled"))]
    for x, y in _scattered(rng, int(rng.integers(6, 12)), (35, 120), (-80, 80), 22, taken):
        size = (float(rng.uniform(12, 22)), float(rng.uniform(12, 22)), float(rng.uniform(6, 35)))
        solids += _house(rng, x, y, size, yaw=float(rng.uniform(0, math.pi)))
    for x, y in _scattered(rng, int(rng.integers(8, 16)), (4, 32), (-16, 16), 3, taken):
        solids.append(_thing(rng, (x, y, 0), float(rng.uniform(0.4, 1.8))))
    for x, y in _scattered(rng, int(rng.integers(2, 6)), (5, 30), (-14, 14), 3, taken):
        base, stone = (
            float(rng.uniform(0.8, 1.6)),
            _patterned(rng, (0.3, 1), "bricks", "bands", "mottled", "plain"),
        )
        top = float(rng.uniform(2.5, 6))
        solids.append(_box((x, y, 0), (base, base, 0.5), stone))
        solids.append(_cylinder((x, y, 0.5), (x, y, top), base * 0.3, stone))
        if rng.random() < 0.6:
            solids.append(_ball((x, y, top + base * 0.4), base * 0.4, _paint(rng)))
    steps, stone = int(rng.integers(3, 8)), _paint(rng)
    x, y, yaw = float(rng.uniform(8, 25)), float(rng.uniform(-8, 8)), float(rng.uniform(0, math.pi))
    for step in range(steps):
        side = 4.0 - 3 * step / steps
        solids.append(_box((x, y, 0.18 * step), (side, side, 0.18), stone, yaw=yaw))
    for x, y in _scattered(rng, 8, (3, 30), (-12, 12), 1.5, taken):
        solids += _person(rng, x, y)
    for x, y in _scattered(rng, 5, (8, 40), (-20, 20), 5, taken):
        solids += _tree(rng, x, y)
    for x, y in _scattered(rng, 4, (5, 30), (-10, 10), 4, taken):
        solids.append(_cylinder((x, y, 0), (x, y, float(rng.uniform(3, 7))), 0.05, _metal(rng)))
    light, sky, haze = _daylight(rng)
    return Stage(World(solids, light, sky, haze), (-3, 3), (-5, 5), (1.2, 5), (-30, 30), (-4, 22), 0.6)


def _things_on_a_floor(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    floor = _any_material(rng, (0.15, 0.9))
    solids = [_ground(replace(floor, specular=0.05))]
    if rng.random() < 0.6:
        wall = _any_material(rng, (0.2, 0.9))
        solids.append(
            _box(
                (float(rng.uniform(5, 10)), 0, 0),
                (0.3, 60, float(rng.uniform(2.5, 8))),
                wall,
                yaw=float(rng.normal(0, 0.25)),
            )
        )
    for x, y in _scattered(rng, int(rng.integers(14, 28)), (1.2, 8), (-4, 4), 0.55, taken):
        size = float(rng.uniform(0.12, 0.45))
        thing = _thing(rng, (x, y, 0), size)
        solids.append(thing)
        if rng.random() < 0.2 and thing.quadric is None:
            solids.append(_thing(rng, (x, y, thing.position[2] + thing.high[2]), size * 0.6))
    for x, y in _scattered(rng, 5, (1.5, 7), (-3, 3), 0.8, taken):
        lean = (x + float(rng.normal(0, 0.15)), y + float(rng.normal(0, 0.15)), float(rng.uniform(0.6, 1.8)))
        solids.append(
            _cylinder((x, y, 0), lean, float(rng.uniform(0.006, 0.03)), _any_material(rng, (0.05, 0.3)))
        )
    light, sky, haze = _daylight(rng)
    return Stage(World(solids, light, sky, haze), (-1, 0.6), (-2, 2), (0.4, 1.8), (-25, 25), (8, 30), 0.2)


KINDS: dict[str, Callable[[Rng], Stage]] = {
    "street": _street,
    "countryside": _countryside,
    "room": _room,
    "hall": _hall,
    "plaza": _plaza,
    "things on a floor": _things_on_a_floor,
}
"""The kinds of world, by name."""
