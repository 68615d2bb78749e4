"""Procedural surface textures: patterns over surface coordinates in metres, filtered to the pixel.

A texture that is finer than a pixel turns into noise that no real camera would see, and hides the texture
gradient, one of the strongest cues to depth. So every pattern takes the pixel's footprint on the surface and
averages over it: exactly for periodic ones (the integral of a square wave is piecewise linear), by fading to
the mean for noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""float32 throughout; NumPy's type stubs lose track of the precision in arithmetic."""

Colour = tuple[float, float, float]
"""Linear RGB reflectance in [0, 1]."""

_NOISE_SIZE = 1024
_REMAP_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class Material:
    """Appearance of a surface.

    Attributes:
        base, second: the two colours that the pattern mixes.
        pattern: a key of `PATTERNS`.
        period: period of the pattern in metres.
        grain: strength of the fractal brightness variation, 0 to 1.
        grain_period: size in metres of its largest features.
        specular: strength of the highlight, 0 (matt) to 1.
        gloss: sharpness of the highlight, the exponent of the Blinn-Phong model.
        emission: light given off, as a multiple of the colour.
    """

    base: Colour
    second: Colour = (0.5, 0.5, 0.5)
    pattern: str = "plain"
    period: float = 1.0
    grain: float = 0.3
    grain_period: float = 2.0
    specular: float = 0.05
    gloss: float = 20.0
    emission: float = 0.0


def albedo(material: Material, u: Array, v: Array, footprint: Array) -> Array:
    """Colour of surface points, without grain.

    Args:
        material: its colours and pattern.
        u: (N,) float32 surface coordinate in metres.
        v: (N,) float32, the other one.
        footprint: (N,) float32 size of a pixel on the surface in metres.

    Returns:
        (3, N) float32 linear RGB.
    """
    scale = np.float32(1 / material.period)
    weight = PATTERNS[material.pattern](u * scale, v * scale, footprint * scale)
    base, second = np.array([material.base, material.second], np.float32)[:, :, None]
    return base + weight * (second - base)


def grain(u: Array, v: Array, footprint: Array, period: Array) -> Array:
    """Two octaves of fractal noise, mean 0.5, each faded out where a pixel covers many of its texels.

    The mean of n independent texels varies 1 / sqrt(n) as much; a footprint of k × k texels has n = k², so
    the amplitude is divided by k. 7.3 is not a whole number, so the two octaves do not repeat together.

    Args:
        u: (N,) float32 surface coordinate in metres.
        v: (N,) float32, the other one.
        footprint: (N,) float32 size of a pixel on the surface in metres.
        period: (N,) float32, size in metres of the largest features.

    Returns:
        (N,) float32.
    """
    total = np.full_like(u, 0.5)
    for octave, share in ((1.0, 0.6), (7.3, 0.4)):
        # The table's largest features span an eighth of it.
        texels = np.float32(octave * _NOISE_SIZE / 8) / period
        fade = np.float32(share) / np.maximum(footprint * texels, 1)
        total += fade * (sample_noise(u * texels, v * texels) - 0.5)
    return total


def sample_noise(x: Array, y: Array) -> Array:
    """Look up the tileable fractal noise at (N,) float32 texel coordinates `x`, `y`; values in [0, 1]."""
    # OpenCV limits a map's sides, not its area, so the points are laid out as a rectangle.
    count = x.size
    shape = (-(-count // _REMAP_COLUMNS), _REMAP_COLUMNS)
    maps = np.zeros((2, shape[0] * shape[1]), np.float32)
    np.mod(x, np.float32(_NOISE_SIZE), out=maps[0, :count])
    np.mod(y, np.float32(_NOISE_SIZE), out=maps[1, :count])
    map_x, map_y = maps.reshape(2, *shape)
    sampled = cv2.remap(_noise(), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return sampled.ravel()[:count]


@lru_cache(maxsize=1)
def _noise() -> Array:
    """One tile of fractal noise, mean 0.5, clipped to [0, 1].

    Spectral synthesis (Saupe 1988): white noise, filtered in the frequency domain to an amplitude of
    1 / f^1.4, as natural textures have; the inverse transform is periodic, so the tile has no seam.
    """
    rng = np.random.default_rng(20210324)
    frequency = np.fft.fftfreq(_NOISE_SIZE) * _NOISE_SIZE
    radius = np.hypot(frequency[:, None], frequency[None, :])
    # Below eight cycles a tile the spectrum is flat: larger features would show as repetition.
    amplitude = 1 / np.maximum(radius, 8) ** 1.4
    amplitude[0, 0] = 0
    spectrum = np.fft.fft2(rng.standard_normal((_NOISE_SIZE, _NOISE_SIZE))) * amplitude
    field = np.fft.ifft2(spectrum).real
    return np.clip(0.5 + 0.2 * field / field.std(), 0, 1).astype(np.float32)


def _pulse(x: Array, duty: float, footprint: Array) -> Array:
    """A square wave of period 1 that is 1 for the share `duty`, averaged over `footprint` around `x`.

    The analytic box filter (Apodaca and Gritz 1999): the mean over [a, b] is (F(b) - F(a)) / (b - a) with
    the integral F(x) = duty · floor(x) + min(frac(x), duty). At duty 0.5, F(1.25) = 0.5 + 0.25.
    """
    width = np.maximum(footprint, np.float32(1e-3))

    def integral(at: Array) -> Array:
        whole = np.floor(at)
        return np.float32(duty) * whole + np.minimum(at - whole, np.float32(duty))

    # Around a phase in [0, 1): far from the origin the difference of F would be lost to rounding.
    phase, half = x - np.floor(x), width * np.float32(0.5)
    return (integral(phase + half) - integral(phase - half)) / width


def _shade_of_cell(column: Array, row: Array, footprint: Array) -> Array:
    """A pseudo-random number in [0, 1) for each cell of a grid, fading to 0.5 where cells are small.

    The customary hash of shaders, frac(k · sin(12.9898 · column + 78.233 · row)): distant phases of a sine,
    stretched until only its low digits matter.
    """
    mixed = np.sin(column * np.float32(12.9898) + row * np.float32(78.233)) * np.float32(4375.85)
    fade = np.clip(1 - footprint, 0, 1)
    return 0.5 + fade * (mixed - np.floor(mixed) - 0.5)


def _checker(u: Array, v: Array, footprint: Array) -> Array:
    a, b = _pulse(u, 0.5, footprint), _pulse(v, 0.5, footprint)
    return a + b - 2 * a * b


def _bricks(u: Array, v: Array, footprint: Array) -> Array:
    """Running bond; weight 1 is mortar, and bricks differ a little."""
    row = np.floor(v * 3)
    shifted = u + 0.5 * np.mod(row, 2)
    stone = _pulse(shifted, 0.95, footprint) * _pulse(v * 3, 0.85, footprint * 3)
    return 1 - stone * (1 - 0.3 * _shade_of_cell(np.floor(shifted), row, footprint))


def _planks(u: Array, v: Array, footprint: Array) -> Array:
    """Boards along v with dark gaps, each of its own shade."""
    board = np.floor(u * 4)
    shifted = v * 0.5 + _shade_of_cell(board, np.zeros_like(board), np.zeros_like(board))
    gap = 1 - _pulse(u * 4, 0.95, footprint * 4) * _pulse(shifted, 0.985, footprint * 0.5)
    return np.maximum(gap, 0.6 * _shade_of_cell(board, np.floor(shifted), footprint * 2))


def _windows(u: Array, v: Array, footprint: Array) -> Array:
    """A façade; weight 1 is a window pane, some brighter."""
    pane = _pulse(u - 0.25, 0.5, footprint) * _pulse(v - 0.2, 0.6, footprint)
    return pane * (1 - 0.5 * _shade_of_cell(np.floor(u - 0.25), np.floor(v - 0.2), footprint))


def _dots(u: Array, v: Array, footprint: Array) -> Array:
    distance = np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5)
    sharpness = 1 / np.maximum(footprint, np.float32(0.02))
    fade = np.clip(1.5 - footprint * 2, 0, 1)
    dot = np.clip((0.3 - distance) * sharpness + 0.5, 0, 1)
    return fade * dot + (1 - fade) * np.float32(np.pi * 0.09)


def _dashes(u: Array, v: Array, footprint: Array) -> Array:
    """Broken line in the middle (along v) and two solid ones at the sides, for roads of width 1."""
    across = np.abs(u)
    centre = (_pulse(u + 0.01, 0.02, footprint)) * (across < 0.25) * _pulse(v, 0.4, footprint)
    sides = _pulse(across - 0.43, 0.02, footprint) * (across > 0.25)
    return centre + sides


def _mottled(u: Array, v: Array, footprint: Array) -> Array:
    """Patches of the second colour, as in grass, marble or camouflage."""
    texels = np.float32(_NOISE_SIZE / 8)
    field = sample_noise(u * texels, v * texels)
    fade = 1 / np.maximum(footprint * texels / 8, 1)
    return np.clip(0.5 + fade * (field - 0.5) * 3, 0, 1)


PATTERNS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "plain": lambda u, v, footprint: np.zeros_like(u),
    "checker": _checker,
    "stripes": lambda u, v, footprint: _pulse(u, 0.5, footprint),
    "bands": lambda u, v, footprint: _pulse(v, 0.5, footprint),
    "bricks": _bricks,
    "planks": _planks,
    "tiles": lambda u, v, footprint: 1 - _pulse(u, 0.94, footprint) * _pulse(v, 0.94, footprint),
    "windows": _windows,
    "dots": _dots,
    "dashes": _dashes,
    "mottled": _mottled,
}
"""Pattern name → weight of the second colour at (u, v), both in periods, averaged over the footprint."""
