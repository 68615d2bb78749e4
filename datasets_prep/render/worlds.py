"""Random worlds to render: streets, façades, countryside, rooms, halls, plazas and things on a floor.

Things have real sizes, stand on the ground and repeat with distance, so that images carry the cues from which
depth is learnt: perspective, ground contact, familiar size, texture gradient, occlusion, shading, shadows,
haze. Everything is drawn from the generator that is passed in; nothing else is random.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from datasets_prep.render import materials, things
from datasets_prep.render.cameras import Location
from datasets_prep.render.lighting import random_daylight, random_lamplight
from datasets_prep.render.raycast import Range, Rng, Solid, World
from datasets_prep.render.solids import ball, box, cylinder, ellipsoid, ground, patch
from datasets_prep.render.textures import Material


def random_location(rng: Rng, kinds: Sequence[str] = ()) -> Location:
    """A world and its cameras, drawn from `rng`: one of `kinds`, keys of `KINDS`, or any of `VARIED`."""
    names = list(kinds or VARIED)
    name = names[rng.integers(len(names))]
    location = KINDS[name](rng)
    return replace(location, flash=bool(rng.random() < 0.4)) if name in _FLASHED else location


def _scattered(
    rng: Rng, count: int, x: Range, y: Range, apart: float, taken: list[tuple[float, float]] | None = None
) -> list[tuple[float, float]]:
    """Up to `count` random places, `apart` metres from each other and from `taken`, which they join.

    Dart throwing (Poisson-disc sampling by rejection): a place too near to another is dropped, and after four
    draws a place the area counts as full.
    """
    taken = [] if taken is None else taken
    places: list[tuple[float, float]] = []
    for _ in range(4 * count):
        place = (rng.uniform(*x), rng.uniform(*y))
        if len(places) < count and all(math.dist(place, other) >= apart for other in taken):
            places.append(place)
            taken.append(place)
    return places


def _foreground(rng: Rng, x: Range, y: Range, taken: list[tuple[float, float]]) -> list[Solid]:
    """A few large things close to the camera, in the ranges `x` and `y`, that hide what is behind them."""
    solids: list[Solid] = []
    for along, beside in _scattered(rng, int(rng.integers(1, 4)), x, y, 1.2, taken):
        size = rng.uniform(0.4, 1.1)
        bush = ellipsoid((along, beside, 0.7 * size), (size, size, size), materials.leaves(rng))
        trunk = cylinder((along, beside, 0), (along, beside, 6), 0.4 * size, materials.wood(rng, 0.3))
        thing = things.any_thing(rng, (along, beside, 0), 0.8 * size)
        solids += (things.person(rng, along, beside), [trunk], [bush], [thing], [thing])[rng.integers(5)]
    return solids


def _street(rng: Rng) -> Location:
    half = rng.uniform(3, 5)
    pavement = rng.uniform(1.5, 3.5)
    road = replace(materials.asphalt(rng), pattern="dashes", second=(0.75, 0.75, 0.7), period=2 * half)
    paving = materials.pattern(rng, (0.4, 1.0), "tiles", "bricks", "checker")
    solids = [ground(materials.grass(rng) if rng.random() < 0.5 else materials.asphalt(rng))]
    # Markings run along a box's second axis, so the road is a box turned by a right angle.
    solids.append(patch((150, 0, -0.02), (2 * half, 400, 0.025), road, yaw=math.pi / 2))
    for side in (-1, 1):
        y = side * (half + pavement / 2)
        solids.append(patch((150, y, 0), (400, pavement, 0.13), paving))
        x = rng.uniform(-25, -10)
        while x < 140:
            length, depth = rng.uniform(7, 20), rng.uniform(8, 16)
            set_back = float(rng.choice([0.0, 0.0, 1.5, 4.0]))
            tall = float(rng.uniform(4, 9) if rng.random() < 0.5 else rng.uniform(9, 26))
            place = side * (half + pavement + set_back + depth / 2)
            if rng.random() < 0.88:
                solids += things.house(rng, x + length / 2, place, (length, depth, tall))
            x += length + float(rng.choice([0.0, 0.0, 2.0, 6.0]))
        for along in np.arange(rng.uniform(2, 8), 90, rng.uniform(12, 20)):
            solids += things.tree(rng, float(along), side * (half + 0.4)) if rng.random() < 0.6 else []
        for along, _ in _scattered(rng, 4, (3, 60), (0, 0.1), 6):
            solids += things.car(rng, along, side * (half - 1.1), 0 if side < 0 else math.pi)
        for along, beside in _scattered(rng, 4, (2.5, 30), (0.6, pavement), 1.0):
            solids += things.person(rng, along, side * (half + beside))
    if rng.random() < 0.6:
        y = float(rng.choice([-1.0, 1.0])) * (half + 0.5)
        solids += things.power_line(rng, [(x, y) for x in (-14.0, 12.0, 38.0, 64.0)], rng.uniform(6, 8))
    for along, beside in _scattered(rng, 2, (12, 80), (-half + 2, half - 2), 9):
        solids += things.car(rng, along, beside, 0 if beside < 0 else math.pi)
    solids += _foreground(rng, (3, 12), (-half - 1, half + 1), [])
    world = World(solids, *random_daylight(rng))
    return Location(world, (-3, 8), (-half - 1, half + 1), (1.0, 4.0), (-65, 65), (-16, 24), 0.7)


def _street_from_a_car(rng: Rng) -> Location:
    """As KITTI was recorded: one camera at one height over the road, so that metres can be learnt."""
    street, height, focal = _street(rng), 1.65, 0.58
    car = replace(street, y=(-1.6, -0.9), height=(height, height), yaw=(-4, 4), pitch=(0, 1))
    return replace(car, focal=(focal, focal), roll=1.0)


def _countryside(rng: Rng) -> Location:
    taken: list[tuple[float, float]] = []
    solids = [ground(materials.grass(rng))]
    solids += things.hills(rng, replace(materials.leaves(rng), period=25.0, grain_period=15.0))
    if rng.random() < 0.6:
        path = Material(materials.colour(rng, (0.3, 0.5), (0.2, 0.4), hue=0.09), grain=0.5, specular=0)
        yaw = rng.uniform(-0.5, 0.5)
        solids.append(patch((60, rng.uniform(-6, 6), -0.02), (160, 2.6, 0.025), path, yaw=yaw))
    for x, y in _scattered(rng, int(rng.integers(8, 20)), (5, 90), (-45, 45), 4, taken):
        solids += things.tree(rng, x, y)
    for x, y in _scattered(rng, int(rng.integers(2, 8)), (3, 30), (-14, 14), 2, taken):
        radius = rng.uniform(0.2, 1.0)
        grey = materials.colour(rng, (0.2, 0.5), (0, 0.2))
        rock = Material(grey, grain=0.8, grain_period=radius, specular=0)
        radii = (radius, radius * rng.uniform(0.6, 1.2), radius * 0.7)
        solids.append(ellipsoid((x, y, 0.2 * radius), radii, rock, yaw=rng.uniform(0, 3)))
    if rng.random() < 0.6:
        solids += things.fence(rng, rng.uniform(-4, 3), rng.uniform(22, 40), rng.uniform(-9, 9))
    if rng.random() < 0.6:
        x, y = rng.uniform(25, 70), rng.uniform(-25, 25)
        size = (rng.uniform(8, 16), rng.uniform(6, 10), rng.uniform(3, 5))
        solids += things.house(rng, x, y, size, yaw=rng.uniform(0, math.pi))
    if rng.random() < 0.5:
        y = rng.uniform(-14, 14)
        solids += things.power_line(rng, [(x, y + 0.2 * x) for x in (-20.0, 10.0, 40.0, 70.0)], 7.5)
    if rng.random() < 0.5:
        straw = Material((0.55, 0.42, 0.16), (0.4, 0.28, 0.08), "stripes", 0.12, grain=0.6, grain_period=0.5)
        for x, y in _scattered(rng, 4, (7, 40), (-18, 18), 3, taken):
            solids.append(cylinder((x, y - 0.6, 0.7), (x, y + 0.6, 0.7), 0.7, straw))
    for x, y in _scattered(rng, int(rng.integers(0, 4)), (5, 25), (-8, 8), 2, taken):
        solids += things.person(rng, x, y)
    for x, y in _scattered(rng, int(rng.integers(0, 4)), (10, 35), (-20, 20), 8):
        radius = rng.uniform(4, 12)
        radii = (radius, radius * rng.uniform(0.6, 1.4), radius * rng.uniform(0.5, 0.9))
        solids.append(ellipsoid((x + radius, y, -0.2 * radius), radii, materials.grass(rng)))
    solids += _foreground(rng, (2, 7), (-3, 3), taken)
    world = World(solids, *random_daylight(rng))
    return Location(world, (-2, 4), (-4, 4), (0.8, 4.0), (-40, 40), (-14, 28), 0.7)


def _room(rng: Rng) -> Location:
    taken: list[tuple[float, float]] = []
    length, width = rng.uniform(3.5, 7.5), rng.uniform(3, 6)
    height = rng.uniform(2.4, 3.2)
    paint = materials.colour(rng, (0.5, 0.85), (0.0, 0.35))
    wall = Material(paint, grain=0.08, grain_period=2, specular=0.02)
    if rng.random() < 0.4:
        second = (paint[0] * 0.75, paint[1] * 0.75, paint[2] * 0.8)
        pattern = str(rng.choice(["stripes", "dots", "bricks", "tiles"]))
        wall = replace(wall, second=second, pattern=pattern, period=rng.uniform(0.2, 0.7))
    if rng.random() < 0.5:
        floor = materials.wood(rng, 0.5)
    else:
        floor = materials.pattern(rng, (0.25, 0.6), "tiles", "checker", "mottled")
    ceiling = Material(materials.colour(rng, (0.65, 0.9), (0, 0.1)), grain=0.05)
    size = (length, width, height)
    solids = [box((0, 0, 0), size, wall, wall, wall, wall, floor, ceiling, hollow=True)]
    solids += _wall_fittings(rng, length, width, height)
    table, chair, shelf, sofa = things.table, things.chair, things.shelf, things.sofa
    makers = [table, chair, chair, shelf, sofa, table, shelf, chair]
    end, side_wall = length / 2, width / 2
    for x, y in _scattered(rng, 7, (-end + 1.5, end - 0.6), (-side_wall + 0.5, side_wall - 0.5), 1.1, taken):
        solids += makers[rng.integers(len(makers))](rng, x, y, rng.uniform(0, 2 * math.pi))
    for side in (-1, 1):
        for x, _ in _scattered(rng, 2, (-end + 1.2, end - 0.9), (0, 0.1), 2.0):
            solids += things.shelf(rng, x, side * (side_wall - 0.2), -side * math.pi / 2)
    solids += things.floor_lamp(rng, end - 0.35, float(rng.choice([-1.0, 1.0])) * (side_wall - 0.35))
    for x, y in _scattered(rng, 5, (-end + 1.2, end - 0.3), (-side_wall + 0.3, side_wall - 0.3), 0.6, taken):
        solids.append(things.any_thing(rng, (x, y, 0), rng.uniform(0.08, 0.28)))
    rug = materials.pattern(rng, (0.1, 0.5), "stripes", "checker", "dots", "mottled")
    solids.append(patch((0.4, 0, 0), (length * 0.45, width * 0.45, 0.012), rug, yaw=rng.normal(0, 0.15)))
    lamp = (rng.uniform(-0.25, 0.25) * length, rng.uniform(-0.25, 0.25) * width, height - 0.25)
    world = World(solids, *random_lamplight(rng, lamp, 0.5 * length))
    x_range, y_range = (-end + 0.3, -end + 1.3), (-side_wall + 0.6, side_wall - 0.6)
    return Location(world, x_range, y_range, (0.6, 1.9), (-60, 60), (-14, 32), 0.15)


def _wall_fittings(rng: Rng, length: float, width: float, height: float) -> list[Solid]:
    """Pictures, windows, a door and skirting, flat on the walls."""
    frame = materials.wood(rng)
    glass = Material((0.75, 0.85, 1.0), grain=0.0, emission=rng.uniform(0.6, 1.3))
    solids = []
    for side in (-1, 1):
        y = side * width / 2
        solids.append(patch((0, y - side * 0.01, 0), (length, 0.02, 0.09), frame))
        for x, _ in _scattered(rng, 2, (-length / 2 + 1, length / 2 - 0.8), (0, 0.1), 1.4):
            wide, tall = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.8)
            picture = materials.material(rng, (0.1, 0.5))
            solids.append(patch((x, y, 1.35), (wide + 0.08, 0.05, tall + 0.08), frame))
            solids.append(patch((x, y - side * 0.005, 1.39), (wide, 0.06, tall), picture))
    end = length / 2
    solids.append(patch((end - 0.01, 0, 0), (0.02, width, 0.09), frame))
    across = rng.uniform(-0.25, 0.25) * width
    if rng.random() < 0.6:
        wide, tall = rng.uniform(0.8, 1.6), rng.uniform(0.9, 1.3)
        solids.append(patch((end, across, 0.9), (0.08, wide + 0.14, tall + 0.14), frame))
        solids.append(patch((end - 0.005, across, 0.97), (0.09, wide, tall), glass))
        solids.append(patch((end - 0.03, across, 0.97), (0.05, 0.05, tall), frame))
    else:
        solids.append(patch((end, across, 0), (0.1, 0.95, 2.1), frame))
        solids.append(patch((end - 0.005, across, 0), (0.11, 0.83, 2.02), materials.paint(rng)))
    return solids


def _hall(rng: Rng) -> Location:
    taken: list[tuple[float, float]] = []
    length, width = rng.uniform(12, 40), rng.uniform(4, 14)
    height = rng.uniform(2.8, 7)
    wall = materials.pattern(rng, (0.4, 2.0), "bricks", "tiles", "bands", "plain")
    floor = materials.pattern(rng, (0.5, 2.0), "tiles", "checker", "mottled", "plain")
    ceiling = materials.pattern(rng, (0.8, 2.0), "stripes", "bands")
    size = (length, width, height)
    solids = [box((length / 2 - 3, 0, 0), size, wall, wall, wall, wall, floor, ceiling, hollow=True)]
    column = materials.paint(rng)
    round_columns, spacing = rng.random() < 0.5, rng.uniform(3, 5)
    for x in np.arange(1.5, length - 4, spacing):
        for y in (-0.28 * width, 0.28 * width):
            foot = (float(x), y, 0.0)
            slim = cylinder(foot, (foot[0], y, height), 0.22, column)
            solids.append(slim if round_columns else box(foot, (0.4, 0.4, height), column))
    pipe = materials.metal(rng)
    for y in rng.uniform(-0.45, 0.45, 2) * width:
        start, end = (-2.9, float(y), height - 0.4), (length - 3.1, float(y), height - 0.4)
        solids.append(cylinder(start, end, 0.12, pipe))
    count, beside = int(rng.integers(8, 16)), (-0.45 * width, 0.45 * width)
    for x, y in _scattered(rng, count, (2, length - 5), beside, 1.8, taken):
        side = rng.uniform(0.5, 1.3)
        crate, yaw = materials.wood(rng, side), rng.normal(0, 0.3)
        if rng.random() < 0.3:
            barrel = materials.pattern(rng, (0.2, 0.6), "bands", "plain")
            solids.append(cylinder((x, y, 0), (x, y, 0.95), 0.32, barrel))
            continue
        for level in range(rng.integers(1, 4)):
            shift = rng.normal(0, 0.06)
            solids.append(box((x + shift, y, level * side), (side, side, side), crate, yaw=yaw + shift))
    for x, y in _scattered(rng, 3, (3, 14), (-0.4 * width, 0.4 * width), 1.5, taken):
        solids += things.person(rng, x, y)
    solids += _foreground(rng, (2.5, 7), (-0.35 * width, 0.35 * width), taken)
    lamp = (rng.uniform(0.15, 0.5) * length, rng.uniform(-0.2, 0.2) * width, height - 0.3)
    world = World(solids, *random_lamplight(rng, lamp, 0.4 * length))
    y_range = (-0.35 * width, 0.35 * width)
    return Location(world, (-2.4, 1), y_range, (0.8, 3.0), (-55, 55), (-14, 24), 0.3)


def _plaza(rng: Rng) -> Location:
    taken: list[tuple[float, float]] = []
    solids = [ground(materials.pattern(rng, (0.8, 3), "tiles", "checker", "bricks", "mottled"))]
    for x, y in _scattered(rng, int(rng.integers(8, 14)), (18, 100), (-60, 60), 20, taken):
        size = (rng.uniform(12, 22), rng.uniform(12, 22), rng.uniform(6, 35))
        solids += things.house(rng, x, y, size, yaw=rng.uniform(0, math.pi))
    for x, y in _scattered(rng, int(rng.integers(8, 16)), (4, 32), (-16, 16), 3, taken):
        solids.append(things.any_thing(rng, (x, y, 0), rng.uniform(0.4, 1.8)))
    for x, y in _scattered(rng, int(rng.integers(2, 6)), (5, 30), (-14, 14), 3, taken):
        base = rng.uniform(0.8, 1.6)
        stone = materials.pattern(rng, (0.3, 1), "bricks", "bands", "mottled", "plain")
        top = rng.uniform(2.5, 6)
        solids.append(box((x, y, 0), (base, base, 0.5), stone))
        solids.append(cylinder((x, y, 0.5), (x, y, top), base * 0.3, stone))
        if rng.random() < 0.6:
            solids.append(ball((x, y, top + base * 0.4), base * 0.4, materials.paint(rng)))
    steps, stone = int(rng.integers(3, 8)), materials.paint(rng)
    x, y, yaw = rng.uniform(8, 25), rng.uniform(-8, 8), rng.uniform(0, math.pi)
    for step in range(steps):
        side = 4.0 - 3 * step / steps
        solids.append(box((x, y, 0.18 * step), (side, side, 0.18), stone, yaw=yaw))
    for x, y in _scattered(rng, 8, (3, 30), (-12, 12), 1.5, taken):
        solids += things.person(rng, x, y)
    for x, y in _scattered(rng, 5, (8, 40), (-20, 20), 5, taken):
        solids += things.tree(rng, x, y)
    for x, y in _scattered(rng, 4, (5, 30), (-10, 10), 4, taken):
        solids.append(cylinder((x, y, 0), (x, y, rng.uniform(3, 7)), 0.05, materials.metal(rng)))
    solids += _foreground(rng, (2, 7), (-4, 4), taken)
    world = World(solids, *random_daylight(rng))
    return Location(world, (-3, 3), (-5, 5), (1.2, 7), (-40, 40), (-14, 40), 0.6)


def _facade(rng: Rng) -> Location:
    """Along a wall, on either side: where the camera stands near it, it is near on that side of the image."""
    taken: list[tuple[float, float]] = []
    side = int(rng.choice([-1, 1]))
    distance, height = rng.uniform(1.5, 4.0), rng.uniform(2.5, 12)
    wall = materials.facade(rng) if rng.random() < 0.6 else materials.material(rng, (0.3, 1.5))
    paving = materials.pattern(rng, (0.4, 1.5), "tiles", "checker", "bricks", "mottled")
    solids = [ground(paving if rng.random() < 0.6 else materials.grass(rng))]
    solids.append(box((20, side * (distance + 0.3), 0), (60, 0.6, height), wall))
    piers = np.arange(rng.uniform(-3, 1), 40, rng.uniform(3, 7)).tolist()
    solids += [patch((x, side * distance, 0), (0.6, 0.3, height), wall) for x in piers]
    if rng.random() < 0.5:
        x, y = rng.uniform(8, 30), -side * rng.uniform(0, 10)
        solids += things.house(rng, x, y, (8.0, 12.0, rng.uniform(3, 12)), yaw=rng.normal(0, 0.3))
    edge = side * (distance - 0.6)
    for x, y in _scattered(rng, 4, (2.5, 20), (min(-6, edge), max(6, edge)), 1.5, taken):
        if side * y < distance:
            solids.append(things.any_thing(rng, (x, y, 0), rng.uniform(0.25, 0.8)))
    solids += _foreground(rng, (2, 8), (-1.2, 1.2), taken)
    world = World(solids, *random_daylight(rng))
    yaw = (10, 60) if side > 0 else (-60, -10)
    return Location(world, (-3, 1), (-0.6, 0.6), (0.8, 3.0), yaw, (-18, 22), 0.4)


def _things_on_a_floor(rng: Rng) -> Location:
    taken: list[tuple[float, float]] = []
    floor = materials.material(rng, (0.15, 0.9))
    solids = [ground(replace(floor, specular=0.05))]
    if rng.random() < 0.8:
        wall = materials.material(rng, (0.2, 0.9))
        distance, height = rng.uniform(2.5, 7), rng.uniform(2, 8)
        solids.append(box((distance, 0, 0), (0.3, 60, height), wall, yaw=rng.normal(0, 0.7)))
    for x, y in _scattered(rng, int(rng.integers(6, 20)), (1.2, 8), (-4, 4), 0.8, taken):
        size = rng.uniform(0.15, 0.6)
        thing = things.any_thing(rng, (x, y, 0), size)
        solids.append(thing)
        if rng.random() < 0.2 and thing.quadric is None:
            solids.append(things.any_thing(rng, (x, y, thing.position[2] + thing.high[2]), size * 0.6))
    for x, y in _scattered(rng, 3, (1.5, 7), (-3, 3), 0.8, taken):
        lean = (x + rng.normal(0, 0.15), y + rng.normal(0, 0.15), rng.uniform(0.6, 1.8))
        radius = rng.uniform(0.006, 0.03)
        solids.append(cylinder((x, y, 0), lean, radius, materials.material(rng, (0.05, 0.3))))
    world = World(solids, *random_daylight(rng))
    return Location(world, (-1, 0.6), (-2, 2), (0.4, 1.8), (-35, 35), (-5, 45), 0.2)


VARIED: dict[str, Callable[[Rng], Location]] = {
    "street": _street,
    "countryside": _countryside,
    "room": _room,
    "hall": _hall,
    "plaza": _plaza,
    "things on a floor": _things_on_a_floor,
    "facade": _facade,
}
"""Kind → maker of a random world, of the kinds that are drawn when none is asked for."""

KINDS = {**VARIED, "street from a car": _street_from_a_car}
"""All kinds of world by name."""

_FLASHED = {"room", "hall", "things on a floor", "facade"}
"""Kinds with something near enough for a flash, with which two in five are photographed."""
