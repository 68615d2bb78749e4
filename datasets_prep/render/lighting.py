"""Random light: sun and sky outdoors, a lamp indoors, or a photographer's flash."""

import math
from dataclasses import replace

from datasets_prep.render.raycast import Light, Rng, Sky, Vector


def random_daylight(rng: Rng) -> tuple[Light, Sky, float]:
    """Sun, sky and haze (share of light lost a metre) of an outdoor world, drawn from `rng`."""
    azimuth, height = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(18, 70))
    direction = (math.cos(azimuth) * math.cos(height), math.sin(azimuth) * math.cos(height), math.sin(height))
    overcast = float(rng.random() < 0.2)
    warmth = max(0.0, 1 - height / 0.9) * 0.5
    power = (1.7 + 0.5 * rng.random()) * (1 - 0.8 * overcast)
    colour = (power, power * (1 - 0.25 * warmth), power * (1 - 0.6 * warmth))
    blue = rng.uniform(0.25, 0.5) * (1 - overcast)
    zenith = (0.55 - 0.9 * blue, 0.6 - 0.5 * blue, 0.72)
    horizon = (0.8 + 0.1 * warmth, 0.82 - 0.05 * warmth, 0.86 - 0.25 * warmth)
    clouds = 1.0 if overcast else float(rng.choice([0.0, 0.2, 0.35, 0.5]))
    sky = Sky(zenith, horizon, clouds, (rng.uniform(0, 1024), rng.uniform(0, 1024)))
    fill = 0.3 + 0.45 * overcast
    above, below = (fill * 0.85, fill * 0.95, fill * 1.15), (fill * 0.35, fill * 0.33, fill * 0.28)
    haze = float(rng.choice([0.0006, 0.002, 0.006, 0.02, 0.04], p=[0.1, 0.15, 0.2, 0.3, 0.25]))
    return Light(direction, None, colour, above, below), sky, haze


def random_lamplight(rng: Rng, lamp: Vector, reach: float) -> tuple[Light, Sky]:
    """A lamp at `lamp` for a room of radius `reach` metres, and a dark sky, drawn from `rng`."""
    warmth = rng.uniform(0, 0.35)
    power = 0.75 * (0.3 + reach**2 / 12) ** 0.75
    colour = (power, power * (1 - 0.3 * warmth), power * (1 - 0.7 * warmth))
    fill = rng.uniform(0.22, 0.4)
    tint = (fill, fill * (1 - 0.12 * warmth), fill * (1 - 0.25 * warmth))
    below = (tint[0] * 0.7, tint[1] * 0.68, tint[2] * 0.65)
    dark = (0.0, 0.0, 0.0)
    return Light((0.0, 0.0, 1.0), lamp, colour, tint, below), Sky(dark, dark, 0.0, (0.0, 0.0))


def flashlight(light: Light, camera: Vector, distance: float) -> Light:
    """A flash just above the `camera`, exposed for `distance` metres; a third of other `light` is left."""
    x, y, z = camera
    power = 0.75 * (0.3 + distance**2 / 12)  # of which the inverse square of `shading` leaves 0.75 there
    around = (light.from_above, light.from_below)
    above, below = ((0.35 * red, 0.35 * green, 0.35 * blue) for red, green, blue in around)
    return replace(light, lamp=(x, y, z + 0.07), colour=(power,) * 3, from_above=above, from_below=below)
