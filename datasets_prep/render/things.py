"""Things of real sizes, in metres: trees, cars, people, houses, furniture."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from datasets_prep.render import materials
from datasets_prep.render.raycast import Rng, Solid, Vector
from datasets_prep.render.solids import ball, box, cone, cylinder, dome, ellipsoid, gable, upright_rotation
from datasets_prep.render.textures import Material


def _frame(x: float, y: float, yaw: float) -> Callable[[float, float, float], Vector]:
    """The map from (along, across, up) in the frame of a thing at (x, y), turned by yaw, to the world."""
    turn = upright_rotation(yaw)

    def at(along: float, across: float, up: float) -> Vector:
        shift = turn @ np.array([along, across, 0.0])
        return (x + float(shift[0]), y + float(shift[1]), up)

    return at


def tree(rng: Rng, x: float, y: float) -> list[Solid]:
    """A conifer or a crown of leaves on a trunk, 3 to 10 m high, at (`x`, `y`), drawn from `rng`."""
    height = rng.uniform(3, 10)
    leaves = materials.leaves(rng)
    bark = Material(materials.colour(rng, (0.08, 0.25), (0.3, 0.6), hue=0.07), grain=0.6)
    if rng.random() < 0.4:
        trunk = cylinder((x, y, 0), (x, y, height * 0.3), 0.03 * height, bark)
        tiers = ((0.18, 0.26, 0.5), (0.42, 0.19, 0.45), (0.65, 0.12, 0.4))
        cones = [
            cone((x, y, height * z), height * radius, height * tall, leaves) for z, radius, tall in tiers
        ]
        return [trunk, *cones]
    trunk = cylinder((x, y, 0), (x, y, height * 0.6), 0.03 * height, bark)
    crowns = []
    for _ in range(rng.integers(2, 5)):
        shift = rng.normal(0, 0.12 * height, 3)
        radius = height * rng.uniform(0.16, 0.28)
        centre = (x + float(shift[0]), y + float(shift[1]), 0.72 * height + 0.6 * float(shift[2]))
        crowns.append(ellipsoid(centre, (radius, radius, 0.85 * radius), leaves, yaw=rng.uniform(0, 3)))
    return [trunk, *crowns]


def car(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    """A car at (`x`, `y`) that heads along `yaw` in radians, drawn from `rng`."""
    body, glass = materials.paint(rng), Material((0.03, 0.04, 0.05), grain=0.0, specular=0.7, gloss=120)
    tyre = Material((0.02, 0.02, 0.02), grain=0.2)
    length, width = rng.uniform(3.8, 4.8), rng.uniform(1.7, 1.95)
    at = _frame(x, y, yaw)
    solids = [
        box(at(0, 0, 0.28), (length, width, 0.58), body, yaw=yaw),
        box(
            at(-0.05 * length, 0, 0.86), (0.5 * length, 0.88 * width, 0.55), *[glass] * 4, body, body, yaw=yaw
        ),
    ]
    for along in (-0.31 * length, 0.31 * length):
        start, end = (at(along, side * (width / 2 + 0.02), 0.33) for side in (-1, 1))
        solids.append(cylinder(start, end, 0.33, tyre))
    return solids


def person(rng: Rng, x: float, y: float) -> list[Solid]:
    """A standing person, 1.5 to 1.9 m tall, at (`x`, `y`), drawn from `rng`."""
    height = rng.uniform(1.5, 1.9)
    skin = Material(materials.colour(rng, (0.25, 0.7), (0.35, 0.5), hue=0.06), grain=0.1)
    top, legs = materials.material(rng, (0.08, 0.3)), materials.paint(rng)
    return [
        cylinder((x, y, 0), (x, y, 0.48 * height), 0.14, legs),
        ellipsoid((x, y, 0.66 * height), (0.22, 0.22, 0.24 * height), top),
        ball((x, y, 0.93 * height), 0.07 * height, skin),
    ]


def house(rng: Rng, x: float, y: float, size: Vector, yaw: float = 0.0) -> list[Solid]:
    """A house of `size` at (`x`, `y`), turned by `yaw` radians, flat or with a ridge; drawn from `rng`."""
    wall, roof = materials.facade(rng), materials.pattern(rng, (0.3, 0.9), "bricks", "tiles", "bands")
    solids = [box((x, y, 0), size, wall, wall, wall, wall, roof, roof, yaw=yaw)]
    if rng.random() < 0.5 and size[2] < 14:
        rise = size[1] * rng.uniform(0.25, 0.5)
        gable_wall = replace(wall, pattern="plain")
        solids.append(gable((x, y, size[2]), (size[0], size[1], rise), roof, gable_wall, yaw))
    return solids


def power_line(rng: Rng, points: list[tuple[float, float]], height: float) -> list[Solid]:
    """Poles of `height` with crossbars at `points` (x, y), and wires between them, drawn from `rng`."""
    material = materials.wood(rng) if rng.random() < 0.5 else materials.metal(rng)
    wire = Material((0.02, 0.02, 0.02), grain=0)
    solids = []
    for x, y in points:
        solids.append(cylinder((x, y, 0), (x, y, height), 0.11, material))
        solids.append(cylinder((x, y - 0.9, height - 0.5), (x, y + 0.9, height - 0.5), 0.05, material))
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        for across in (-0.8, 0.8):
            sag = ((x0 + x1) / 2, (y0 + y1) / 2 + across, height - 1.1)
            ends = (x0, y0 + across, height - 0.5), (x1, y1 + across, height - 0.5)
            solids += [cylinder(end, sag, 0.02, wire) for end in ends]
    return solids


def fence(rng: Rng, x0: float, x1: float, y: float) -> list[Solid]:
    """Posts and rails along x from `x0` to `x1` at `y`, drawn from `rng`."""
    material = materials.wood(rng)
    height = rng.uniform(0.9, 1.5)
    spacing = rng.uniform(2, 3.5)
    along = np.arange(x0, x1 + 0.1, spacing).tolist()
    posts = [cylinder((x, y, 0), (x, y, height), 0.06, material) for x in along]
    rails = [cylinder((x0, y, up), (x1, y, up), 0.035, material) for up in (height * 0.45, height * 0.85)]
    return [*posts, *rails]


def hills(rng: Rng, material: Material) -> list[Solid]:
    """A ring of far hills of one `material`, drawn from `rng`."""
    solids = []
    for _ in range(rng.integers(4, 10)):
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(150, 450)
        wide, tall = rng.uniform(60, 140), rng.uniform(12, 45)
        x, y = distance * math.cos(angle), distance * math.sin(angle)
        hill = ellipsoid((x, y, -0.2 * tall), (wide, wide * rng.uniform(0.5, 1), tall), material)
        solids.append(replace(hill, casts_shadow=False))
    return solids


def table(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    """A table at (`x`, `y`) with things on it, turned by `yaw` radians, drawn from `rng`."""
    length, width, height = rng.uniform(0.9, 1.8), rng.uniform(0.6, 0.9), rng.uniform(0.5, 0.78)
    wood, at = materials.wood(rng), _frame(x, y, yaw)
    solids = [box((x, y, height - 0.04), (length, width, 0.04), wood, yaw=yaw)]
    for along, across in itertools.product((-0.45, 0.45), (-0.42, 0.42)):
        foot = at(along * length, across * width, 0.0)
        solids.append(cylinder(foot, (foot[0], foot[1], height - 0.04), 0.03, wood))
    for _ in range(rng.integers(1, 5)):
        place = at(rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.35, 0.35) * width, height)
        solids.append(any_thing(rng, place, rng.uniform(0.05, 0.14)))
    return solids


def chair(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    """A chair at (`x`, `y`), turned by `yaw` radians, drawn from `rng`."""
    material = materials.wood(rng) if rng.random() < 0.6 else materials.paint(rng)
    at = _frame(x, y, yaw)
    seat = box(at(0, 0, 0.42), (0.44, 0.44, 0.05), material, yaw=yaw)
    back = box(at(-0.2, 0, 0.47), (0.04, 0.42, 0.45), material, yaw=yaw)
    feet = itertools.product((-0.19, 0.19), (-0.19, 0.19))
    return [seat, back, *(cylinder(at(*foot, 0), at(*foot, 0.42), 0.022, material) for foot in feet)]


def shelf(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    """A shelf with books at (`x`, `y`), its back at -x, then turned by `yaw` radians; drawn from `rng`."""
    wood = materials.wood(rng)
    width, height, boards = rng.uniform(0.7, 1.6), rng.uniform(0.9, 2.1), int(rng.integers(3, 6))
    at = _frame(x, y, yaw)
    solids = [box(at(0, side * width / 2, 0), (0.35, 0.03, height), wood, yaw=yaw) for side in (-1.0, 1.0)]
    for level in range(boards):
        up = level * (height - 0.04) / (boards - 1)
        solids.append(box(at(0, 0, up), (0.35, width, 0.03), wood, yaw=yaw))
        if level < boards - 1 and rng.random() < 0.8:
            books = materials.pattern(rng, (0.04, 0.1), "stripes")
            span = width * rng.uniform(0.3, 0.8)
            tall = (height / (boards - 1)) * rng.uniform(0.5, 0.8)
            side = rng.uniform(-0.5, 0.5) * (width - span - 0.08)
            solids.append(box(at(0.02, side, up + 0.03), (0.2, span, tall), books, yaw=yaw))
    return solids


def sofa(rng: Rng, x: float, y: float, yaw: float) -> list[Solid]:
    """A sofa at (`x`, `y`), turned by `yaw` radians, drawn from `rng`."""
    cloth = replace(materials.material(rng, (0.05, 0.3)), specular=0.02)
    width = rng.uniform(1.2, 2.1)
    at = _frame(x, y, yaw)
    return [
        box(at(0, 0, 0.08), (0.85, width, 0.36), cloth, yaw=yaw),
        box(at(-0.34, 0, 0.44), (0.18, width, 0.42), cloth, yaw=yaw),
        box(at(0, -width / 2 + 0.09, 0.44), (0.85, 0.18, 0.2), cloth, yaw=yaw),
        box(at(0, width / 2 - 0.09, 0.44), (0.85, 0.18, 0.2), cloth, yaw=yaw),
        ellipsoid(at(-0.1, -width / 4, 0.58), (0.1, 0.2, 0.18), materials.material(rng, (0.05, 0.2)), yaw),
    ]


def floor_lamp(rng: Rng, x: float, y: float) -> list[Solid]:
    """A glowing lamp at (`x`, `y`), drawn from `rng`."""
    metal, height = materials.metal(rng), rng.uniform(1.2, 1.8)
    shade = Material(materials.colour(rng, (0.6, 0.9), (0.05, 0.4)), grain=0.1, emission=0.5)
    return [
        cylinder((x, y, 0), (x, y, 0.03), 0.15, metal),
        cylinder((x, y, 0), (x, y, height), 0.015, metal),
        replace(cone((x, y, height - 0.1), 0.2, 0.35, shade), casts_shadow=False),
    ]


def any_thing(rng: Rng, position: Vector, size: float) -> Solid:
    """Any one solid of about `size` metres radius, standing on `position`, drawn from `rng`."""
    x, y, z = position
    material = materials.material(rng, (0.15 * size, 0.8 * size))
    kind = rng.integers(7)
    stretch = rng.uniform(0.6, 1.8)
    yaw = rng.uniform(0, math.pi)
    if kind == 0:
        return ball((x, y, z + size), size, material)
    if kind == 1:
        radii = (size, size * stretch, size * 0.7)
        return ellipsoid((x, y, z + radii[2]), radii, material, yaw)
    if kind == 2:
        return cylinder(position, (x, y, z + 1.8 * size * stretch), size * 0.8, material)
    if kind == 3:
        return cone(position, size, 2 * size * stretch, material)
    if kind == 4:
        return dome(position, size, size * stretch, material)
    if kind == 5:
        return gable(position, (1.8 * size, 1.6 * size, size * stretch), material, material, yaw)
    return box(position, (1.6 * size, 1.6 * size * stretch, 1.6 * size), material, yaw=yaw)
