"""Random worlds to be rendered: streets, countryside, rooms, halls, plazas and things on a floor.

Things have the sizes they have in life, stand on the ground and repeat with distance, so that pictures carry
the cues that depth is learnt from: perspective, ground contact, familiar size, texture gradient, occlusion,
shading, shadows, haze. Everything is drawn from the generator that is passed in; nothing else is random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from datasets_prep.render.cameras import Stage
from datasets_prep.render.lighting import random_daylight, random_lamplight
from datasets_prep.render.materials import (
    random_asphalt,
    random_colour,
    random_grass,
    random_leaves,
    random_material,
    random_metal,
    random_paint,
    random_pattern,
    random_wood,
)
from datasets_prep.render.raycast import Range, Rng, Solid, World
from datasets_prep.render.solids import ball, box, cylinder, ellipsoid, ground, patch
from datasets_prep.render.textures import Material
from datasets_prep.render.things import (
    any_thing,
    car,
    chair,
    fence,
    floor_lamp,
    hills,
    house,
    person,
    power_line,
    shelf,
    sofa,
    table,
    tree,
)


def random_stage(rng: Rng, kinds: Sequence[str] = ()) -> Stage:
    """A world of a random kind, one of `kinds` or of `VARIED`."""
    names = list(kinds or VARIED)
    return KINDS[names[rng.integers(len(names))]](rng)


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


def _street(rng: Rng) -> Stage:
    half = float(rng.uniform(3, 5))
    pavement = float(rng.uniform(1.5, 3.5))
    road = replace(random_asphalt(rng), pattern="dashes", second=(0.75, 0.75, 0.7), period=2 * half)
    paving = random_pattern(rng, (0.4, 1.0), "tiles", "bricks", "checker")
    solids = [ground(random_grass(rng) if rng.random() < 0.5 else random_asphalt(rng))]
    # Markings run along a box's second axis, so the road is a box turned by a right angle.
    solids.append(patch((150, 0, -0.02), (2 * half, 400, 0.025), road, yaw=math.pi / 2))
    for side in (-1, 1):
        y = side * (half + pavement / 2)
        solids.append(patch((150, y, 0), (400, pavement, 0.13), paving))
        x = float(rng.uniform(-25, -10))
        while x < 140:
            length, depth = float(rng.uniform(7, 20)), float(rng.uniform(8, 16))
            set_back = float(rng.choice([0.0, 0.0, 1.5, 4.0]))
            tall = float(rng.uniform(4, 9) if rng.random() < 0.5 else rng.uniform(9, 26))
            place = side * (half + pavement + set_back + depth / 2)
            if rng.random() < 0.88:
                solids += house(rng, x + length / 2, place, (length, depth, tall))
            x += length + float(rng.choice([0.0, 0.0, 2.0, 6.0]))
        for along in np.arange(rng.uniform(2, 8), 90, rng.uniform(12, 20)):
            solids += tree(rng, float(along), side * (half + 0.4)) if rng.random() < 0.6 else []
        for along, _ in _scattered(rng, 4, (3, 60), (0, 0.1), 6):
            solids += car(rng, along, side * (half - 1.1), 0 if side < 0 else math.pi)
        for along, beside in _scattered(rng, 4, (2.5, 30), (0.6, pavement), 1.0):
            solids += person(rng, along, side * (half + beside))
    if rng.random() < 0.6:
        y = float(rng.choice([-1.0, 1.0])) * (half + 0.5)
        solids += power_line(rng, [(x, y) for x in (-14.0, 12.0, 38.0, 64.0)], float(rng.uniform(6, 8)))
    for along, beside in _scattered(rng, 2, (12, 80), (-half + 2, half - 2), 9):
        solids += car(rng, along, beside, 0 if beside < 0 else math.pi)
    light, sky, haze = random_daylight(rng)
    world = World(solids, light, sky, haze)
    return Stage(world, (-3, 8), (-half - 1, half + 1), (1.2, 2.6), (-35, 35), (-6, 14), 0.7)


def _street_from_a_car(rng: Rng) -> Stage:
    """As KITTI was recorded: one camera, at one height over the road, so that depth in metres can be told."""
    street, height, focal = _street(rng), 1.65, 0.58
    return replace(
        street, y=(-1.6, -0.9), height=(height, height), yaw=(-4, 4), pitch=(0, 1), focal=(focal, focal)
    )


def _countryside(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    grass = random_grass(rng)
    solids = [ground(grass), *hills(rng, replace(random_leaves(rng), period=25.0, grain_period=15.0))]
    if rng.random() < 0.6:
        path = Material(random_colour(rng, (0.3, 0.5), (0.2, 0.4), hue=0.09), grain=0.5, specular=0)
        yaw = float(rng.uniform(-0.5, 0.5))
        solids.append(patch((60, float(rng.uniform(-6, 6)), -0.02), (160, 2.6, 0.025), path, yaw=yaw))
    for x, y in _scattered(rng, int(rng.integers(8, 20)), (5, 90), (-45, 45), 4, taken):
        solids += tree(rng, x, y)
    for x, y in _scattered(rng, int(rng.integers(2, 8)), (3, 30), (-14, 14), 2, taken):
        radius = float(rng.uniform(0.2, 1.0))
        rock = Material(random_colour(rng, (0.2, 0.5), (0, 0.2)), grain=0.8, grain_period=radius, specular=0)
        radii = (radius, radius * float(rng.uniform(0.6, 1.2)), radius * 0.7)
        solids.append(ellipsoid((x, y, 0.2 * radius), radii, rock, yaw=float(rng.uniform(0, 3))))
    if rng.random() < 0.6:
        solids += fence(rng, float(rng.uniform(-4, 3)), float(rng.uniform(22, 40)), float(rng.uniform(-9, 9)))
    if rng.random() < 0.6:
        x, y = float(rng.uniform(25, 70)), float(rng.uniform(-25, 25))
        size = (float(rng.uniform(8, 16)), float(rng.uniform(6, 10)), float(rng.uniform(3, 5)))
        solids += house(rng, x, y, size, yaw=float(rng.uniform(0, math.pi)))
    if rng.random() < 0.5:
        y = float(rng.uniform(-14, 14))
        solids += power_line(rng, [(x, y + 0.2 * x) for x in (-20.0, 10.0, 40.0, 70.0)], 7.5)
    if rng.random() < 0.5:
        straw = Material((0.55, 0.42, 0.16), (0.4, 0.28, 0.08), "stripes", 0.12, grain=0.6, grain_period=0.5)
        for x, y in _scattered(rng, 4, (7, 40), (-18, 18), 3, taken):
            solids.append(cylinder((x, y - 0.6, 0.7), (x, y + 0.6, 0.7), 0.7, straw))
    for x, y in _scattered(rng, int(rng.integers(0, 4)), (5, 25), (-8, 8), 2, taken):
        solids += person(rng, x, y)
    light, sky, haze = random_daylight(rng)
    return Stage(World(solids, light, sky, haze), (-2, 4), (-4, 4), (1.2, 3.5), (-30, 30), (-4, 14), 0.7)


def _room(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    length, width = float(rng.uniform(3.5, 7.5)), float(rng.uniform(3, 6))
    height = float(rng.uniform(2.4, 3.2))
    plaster = Material(
        random_colour(rng, (0.5, 0.85), (0.0, 0.35)), grain=0.08, grain_period=2, specular=0.02
    )
    wall = plaster
    if rng.random() < 0.4:
        second = (plaster.base[0] * 0.75, plaster.base[1] * 0.75, plaster.base[2] * 0.8)
        pattern = str(rng.choice(["stripes", "dots", "bricks", "tiles"]))
        wall = replace(plaster, second=second, pattern=pattern, period=float(rng.uniform(0.2, 0.7)))
    floor = (
        random_wood(rng, 0.5)
        if rng.random() < 0.5
        else random_pattern(rng, (0.25, 0.6), "tiles", "checker", "mottled")
    )
    ceiling = Material(random_colour(rng, (0.65, 0.9), (0, 0.1)), grain=0.05)
    size = (length, width, height)
    solids = [box((0, 0, 0), size, wall, wall, wall, wall, floor, ceiling, hollow=True)]
    solids += _wall_fittings(rng, length, width, height)
    makers = [table, chair, chair, shelf, sofa, table, shelf, chair]
    for x, y in _scattered(
        rng, 7, (-length / 2 + 1.5, length / 2 - 0.6), (-width / 2 + 0.5, width / 2 - 0.5), 1.1, taken
    ):
        solids += makers[rng.integers(len(makers))](rng, x, y, float(rng.uniform(0, 2 * math.pi)))
    for side in (-1, 1):
        for place in _scattered(rng, 2, (-length / 2 + 1.2, length / 2 - 0.9), (0, 0.1), 2.0):
            solids += shelf(rng, place[0], side * (width / 2 - 0.2), -side * math.pi / 2)
    corner = (length / 2 - 0.35, float(rng.choice([-1.0, 1.0])) * (width / 2 - 0.35))
    solids += floor_lamp(rng, *corner)
    for x, y in _scattered(
        rng, 5, (-length / 2 + 1.2, length / 2 - 0.3), (-width / 2 + 0.3, width / 2 - 0.3), 0.6, taken
    ):
        solids.append(any_thing(rng, (x, y, 0), float(rng.uniform(0.08, 0.28))))
    rug = random_pattern(rng, (0.1, 0.5), "stripes", "checker", "dots", "mottled")
    solids.append(
        patch((0.4, 0, 0), (length * 0.45, width * 0.45, 0.012), rug, yaw=float(rng.normal(0, 0.15)))
    )
    lamp = (float(rng.uniform(-0.25, 0.25)) * length, float(rng.uniform(-0.25, 0.25)) * width, height - 0.25)
    light, sky = random_lamplight(rng, lamp, 0.5 * length)
    ranges = (-length / 2 + 0.3, -length / 2 + 1.3), (-width / 2 + 0.6, width / 2 - 0.6)
    return Stage(World(solids, light, sky), *ranges, (0.9, 1.8), (-38, 38), (0, 22), 0.15)


def _wall_fittings(rng: Rng, length: float, width: float, height: float) -> list[Solid]:
    """Pictures, windows, a door and skirting, flat on the walls."""
    frame, glass = (
        random_wood(rng),
        Material((0.75, 0.85, 1.0), grain=0.0, emission=float(rng.uniform(0.6, 1.3))),
    )
    solids = []
    for side in (-1, 1):
        y = side * width / 2
        solids.append(patch((0, y - side * 0.01, 0), (length, 0.02, 0.09), frame))
        for x, _ in _scattered(rng, 2, (-length / 2 + 1, length / 2 - 0.8), (0, 0.1), 1.4):
            wide, tall = float(rng.uniform(0.4, 1.0)), float(rng.uniform(0.4, 0.8))
            picture = random_material(rng, (0.1, 0.5))
            solids.append(patch((x, y, 1.35), (wide + 0.08, 0.05, tall + 0.08), frame))
            solids.append(patch((x, y - side * 0.005, 1.39), (wide, 0.06, tall), picture))
    end = length / 2
    solids.append(patch((end - 0.01, 0, 0), (0.02, width, 0.09), frame))
    across = float(rng.uniform(-0.25, 0.25)) * width
    if rng.random() < 0.6:
        wide, tall = float(rng.uniform(0.8, 1.6)), float(rng.uniform(0.9, 1.3))
        solids.append(patch((end, across, 0.9), (0.08, wide + 0.14, tall + 0.14), frame))
        solids.append(patch((end - 0.005, across, 0.97), (0.09, wide, tall), glass))
        solids.append(patch((end - 0.03, across, 0.97), (0.05, 0.05, tall), frame))
    else:
        solids.append(patch((end, across, 0), (0.1, 0.95, 2.1), frame))
        solids.append(patch((end - 0.005, across, 0), (0.11, 0.83, 2.02), random_paint(rng)))
    return solids


def _hall(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    length, width = float(rng.uniform(15, 40)), float(rng.uniform(6, 16))
    height = float(rng.uniform(3.5, 8))
    wall = random_pattern(rng, (0.4, 2.0), "bricks", "tiles", "bands", "plain")
    floor = random_pattern(rng, (0.5, 2.0), "tiles", "checker", "mottled", "plain")
    ceiling = random_pattern(rng, (0.8, 2.0), "stripes", "bands")
    size = (length, width, height)
    solids = [box((length / 2 - 3, 0, 0), size, wall, wall, wall, wall, floor, ceiling, hollow=True)]
    column = random_paint(rng)
    round_columns, spacing = rng.random() < 0.5, float(rng.uniform(3, 5))
    for x in np.arange(1.5, length - 4, spacing):
        for y in (-0.28 * width, 0.28 * width):
            foot = (float(x), y, 0.0)
            if round_columns:
                solids.append(cylinder(foot, (foot[0], y, height), 0.22, column))
            else:
                solids.append(box(foot, (0.4, 0.4, height), column))
    pipe = random_metal(rng)
    for y in rng.uniform(-0.45, 0.45, 2) * width:
        start, end = (-2.9, float(y), height - 0.4), (length - 3.1, float(y), height - 0.4)
        solids.append(cylinder(start, end, 0.12, pipe))
    for x, y in _scattered(
        rng, int(rng.integers(8, 16)), (2, length - 5), (-0.45 * width, 0.45 * width), 1.8, taken
    ):
        side = float(rng.uniform(0.5, 1.3))
        crate, yaw = random_wood(rng, side), float(rng.normal(0, 0.3))
        if rng.random() < 0.3:
            solids.append(
                cylinder((x, y, 0), (x, y, 0.95), 0.32, random_pattern(rng, (0.2, 0.6), "bands", "plain"))
            )
            continue
        for level in range(rng.integers(1, 4)):
            shift = float(rng.normal(0, 0.06))
            solids.append(box((x + shift, y, level * side), (side, side, side), crate, yaw=yaw + shift))
    for x, y in _scattered(rng, 3, (3, 14), (-0.4 * width, 0.4 * width), 1.5, taken):
        solids += person(rng, x, y)
    lamp = (float(rng.uniform(0.15, 0.5)) * length, float(rng.uniform(-0.2, 0.2)) * width, height - 0.3)
    light, sky = random_lamplight(rng, lamp, 0.4 * length)
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
    solids = [ground(random_pattern(rng, (0.8, 3), "tiles", "checker", "bricks", "mottled"))]
    for x, y in _scattered(rng, int(rng.integers(6, 12)), (35, 120), (-80, 80), 22, taken):
        size = (float(rng.uniform(12, 22)), float(rng.uniform(12, 22)), float(rng.uniform(6, 35)))
        solids += house(rng, x, y, size, yaw=float(rng.uniform(0, math.pi)))
    for x, y in _scattered(rng, int(rng.integers(8, 16)), (4, 32), (-16, 16), 3, taken):
        solids.append(any_thing(rng, (x, y, 0), float(rng.uniform(0.4, 1.8))))
    for x, y in _scattered(rng, int(rng.integers(2, 6)), (5, 30), (-14, 14), 3, taken):
        base, stone = (
            float(rng.uniform(0.8, 1.6)),
            random_pattern(rng, (0.3, 1), "bricks", "bands", "mottled", "plain"),
        )
        top = float(rng.uniform(2.5, 6))
        solids.append(box((x, y, 0), (base, base, 0.5), stone))
        solids.append(cylinder((x, y, 0.5), (x, y, top), base * 0.3, stone))
        if rng.random() < 0.6:
            solids.append(ball((x, y, top + base * 0.4), base * 0.4, random_paint(rng)))
    steps, stone = int(rng.integers(3, 8)), random_paint(rng)
    x, y, yaw = float(rng.uniform(8, 25)), float(rng.uniform(-8, 8)), float(rng.uniform(0, math.pi))
    for step in range(steps):
        side = 4.0 - 3 * step / steps
        solids.append(box((x, y, 0.18 * step), (side, side, 0.18), stone, yaw=yaw))
    for x, y in _scattered(rng, 8, (3, 30), (-12, 12), 1.5, taken):
        solids += person(rng, x, y)
    for x, y in _scattered(rng, 5, (8, 40), (-20, 20), 5, taken):
        solids += tree(rng, x, y)
    for x, y in _scattered(rng, 4, (5, 30), (-10, 10), 4, taken):
        solids.append(cylinder((x, y, 0), (x, y, float(rng.uniform(3, 7))), 0.05, random_metal(rng)))
    light, sky, haze = random_daylight(rng)
    return Stage(World(solids, light, sky, haze), (-3, 3), (-5, 5), (1.2, 5), (-30, 30), (-4, 22), 0.6)


def _things_on_a_floor(rng: Rng) -> Stage:
    taken: list[tuple[float, float]] = []
    floor = random_material(rng, (0.15, 0.9))
    solids = [ground(replace(floor, specular=0.05))]
    if rng.random() < 0.6:
        wall = random_material(rng, (0.2, 0.9))
        solids.append(
            box(
                (float(rng.uniform(5, 10)), 0, 0),
                (0.3, 60, float(rng.uniform(2.5, 8))),
                wall,
                yaw=float(rng.normal(0, 0.25)),
            )
        )
    for x, y in _scattered(rng, int(rng.integers(14, 28)), (1.2, 8), (-4, 4), 0.55, taken):
        size = float(rng.uniform(0.12, 0.45))
        thing = any_thing(rng, (x, y, 0), size)
        solids.append(thing)
        if rng.random() < 0.2 and thing.quadric is None:
            solids.append(any_thing(rng, (x, y, thing.position[2] + thing.high[2]), size * 0.6))
    for x, y in _scattered(rng, 5, (1.5, 7), (-3, 3), 0.8, taken):
        lean = (x + float(rng.normal(0, 0.15)), y + float(rng.normal(0, 0.15)), float(rng.uniform(0.6, 1.8)))
        solids.append(
            cylinder((x, y, 0), lean, float(rng.uniform(0.006, 0.03)), random_material(rng, (0.05, 0.3)))
        )
    light, sky, haze = random_daylight(rng)
    return Stage(World(solids, light, sky, haze), (-1, 0.6), (-2, 2), (0.4, 1.8), (-25, 25), (8, 30), 0.2)


VARIED: dict[str, Callable[[Rng], Stage]] = {
    "street": _street,
    "countryside": _countryside,
    "room": _room,
    "hall": _hall,
    "plaza": _plaza,
    "things on a floor": _things_on_a_floor,
}
"""Stages by name, that are drawn from where no kind is asked for: worlds and views of every kind."""

KINDS = {**VARIED, "street from a car": _street_from_a_car}
"""All kinds of stage by name."""
