"""Random colours and materials: paint, wood, stone, leaves; each is drawn from the generator `rng`."""

from datasets_prep.render.raycast import Range, Rng
from datasets_prep.render.textures import Colour, Material


def colour(rng: Rng, value: Range = (0.15, 0.7), saturation: Range = (0.1, 0.7), hue: float = -1.0) -> Colour:
    """A random linear RGB colour, by the formula of HSV: f(n) = v - v s max(0, min(k, 4 - k, 1)), k = n + h.

    `rng` draws `value` and `saturation` from these ranges in [0, 1]. `hue` in [0, 1) is kept up to a little
    variation; negative for any: most of them of earth and sky.
    """
    if hue < 0:
        hue = (rng.uniform(0.0, 0.16), rng.uniform(0.5, 0.66), rng.random())[rng.choice(3, p=(0.6, 0.2, 0.2))]
        saturation = (saturation[0] * 0.6, saturation[1] * 0.85)
    h = (hue + rng.normal(0, 0.02)) * 6
    v, s = rng.uniform(*value), rng.uniform(*saturation)
    channels = [v * (1 - s * min(max(min((n + h) % 6, 4 - (n + h) % 6), 0), 1)) for n in (5, 3, 1)]
    return (channels[0], channels[1], channels[2])


def paint(rng: Rng, hue: float = -1.0) -> Material:
    """Smooth and more or less shiny, of that `hue` as in `colour`; `rng` draws."""
    specular, gloss = rng.uniform(0.05, 0.6), rng.uniform(20, 150)
    return Material(colour(rng, hue=hue), grain=0.12, grain_period=1.0, specular=specular, gloss=gloss)


def pattern(rng: Rng, period: Range, *patterns: str) -> Material:
    """Two colours in one of the `patterns`, with a period in the range `period` in metres; `rng` draws."""
    base, second = colour(rng), colour(rng)
    chosen, length = str(rng.choice(patterns)), rng.uniform(*period)
    grain, grain_period, specular, gloss = (
        rng.uniform(*r) for r in ((0.1, 0.5), (0.3, 3), (0, 0.25), (10, 80))
    )
    return Material(base, second, chosen, length, grain, grain_period, specular, gloss)


def material(rng: Rng, period: Range) -> Material:
    """Paint, or any pattern with a period in the range `period` in metres; `rng` draws."""
    if rng.random() < 0.45:
        return paint(rng)
    return pattern(rng, period, "checker", "stripes", "bands", "dots", "bricks", "planks", "mottled", "tiles")


def wood(rng: Rng, period: float = 0.6) -> Material:
    """Planks with that `period` in metres; `rng` draws."""
    base = colour(rng, (0.2, 0.55), (0.4, 0.65), hue=0.08)
    dark = (base[0] * 0.45, base[1] * 0.4, base[2] * 0.35)
    return Material(base, dark, "planks", period, grain=0.35, grain_period=0.8, specular=0.1, gloss=30)


def metal(rng: Rng) -> Material:
    """Dark and shiny; `rng` draws."""
    return Material(colour(rng, (0.1, 0.4), (0, 0.15)), grain=0.15, specular=0.5, gloss=60)


def grass(rng: Rng) -> Material:
    """Mottled, in greens and yellows; `rng` draws."""
    base = colour(rng, (0.15, 0.4), (0.5, 0.8), hue=rng.uniform(0.18, 0.3))
    second = colour(rng, (0.2, 0.45), (0.4, 0.7), hue=rng.uniform(0.1, 0.25))
    return Material(base, second, "mottled", rng.uniform(4, 15), grain=0.7, grain_period=0.9, specular=0)


def leaves(rng: Rng) -> Material:
    """Foliage seen from afar; `rng` draws."""
    base = colour(rng, (0.08, 0.3), (0.5, 0.8), hue=rng.uniform(0.17, 0.33))
    dark = (base[0] * 0.4, base[1] * 0.45, base[2] * 0.4)
    return Material(base, dark, "mottled", 0.8, grain=0.9, grain_period=0.5, specular=0)


def asphalt(rng: Rng) -> Material:
    """Grey and rough; `rng` draws."""
    grey = rng.uniform(0.06, 0.2)
    return Material((grey, grey, grey * 1.05), grain=0.35, grain_period=1.2, specular=0.03)


def facade(rng: Rng) -> Material:
    """A wall with rows of windows; `rng` draws."""
    wall = colour(rng, (0.25, 0.75), (0.05, 0.5), hue=rng.choice([0.03, 0.07, 0.1, 0.13, 0.55]))
    glass = colour(rng, (0.03, 0.25), (0.1, 0.5), hue=0.58)
    return Material(wall, glass, "windows", rng.uniform(2.2, 3.4), grain=0.3, grain_period=3, specular=0.1)
