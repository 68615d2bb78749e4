"""From a depth map to coloured points in space."""

import math

import numpy as np


def unproject(depth: np.ndarray, field_of_view: float) -> np.ndarray:
    """Points of a pinhole camera that looks along +z, with x to the right and y down.

    A pixel u pixels right of the image centre has x = depth · u / f, with the focal length in pixels
    f = (width / 2) / tan(field_of_view / 2): at 90° and 640 pixels f is 320, so x = depth at the right edge.

    Args:
        depth: (H, W) distance along the optical axis, in any unit.
        field_of_view: horizontal angle of the whole image in degrees.

    Returns:
        (H, W, 3) float32 in the unit of `depth`; not finite where `depth` is not.

    Raises:
        ValueError: if `field_of_view` is not between 0 and 180 degrees.
    """
    if not 0 < field_of_view < 180:
        raise ValueError(f"field of view must be between 0 and 180 degrees, not {field_of_view}")
    height, width = depth.shape
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    return np.stack([depth * x, depth * y[:, None], depth], axis=-1).astype(np.float32)


def relative_depth(inverse_depth: np.ndarray, farthest: float = 20.0) -> np.ndarray:
    """Depth of a prediction that is known up to scale and shift, in units of its nearest point.

    The unknown shift is assumed to be 0, so shapes are plausible, not exact. Pixels more than `farthest`
    times as far as the nearest are left out: near zero, inverse depth does not determine depth.

    Args:
        inverse_depth: (H, W), non-negative, larger is nearer.
        farthest: the largest depth of the result.

    Returns:
        (H, W) float32, from 1 to `farthest`, else NaN.
    """
    nearest = np.nanmax(inverse_depth, initial=0.0)
    kept = (inverse_depth > 0) & (inverse_depth * farthest >= nearest)
    return np.divide(nearest, inverse_depth, out=np.full(inverse_depth.shape, np.nan, np.float32), where=kept)


def encode_ply(points: np.ndarray, colours: np.ndarray, unit: str) -> bytes:
    """Binary PLY file of points.

    Args:
        points: (..., 3) float32; those that are not finite are left out.
        colours: (..., 3) uint8 RGB.
        unit: of the points, in ASCII; a comment of the file's header says it.
    """
    points, colours = points.reshape(-1, 3), colours.reshape(-1, 3)
    finite = np.isfinite(points).all(axis=1)
    names = ("x", "y", "z", "red", "green", "blue")
    vertices = np.empty(finite.sum(), dtype=list(zip(names, ["<f4"] * 3 + ["u1"] * 3, strict=True)))
    for axis in range(3):
        vertices[names[axis]] = points[finite, axis]
        vertices[names[3 + axis]] = colours[finite, axis]
    types = ["float"] * 3 + ["uchar"] * 3
    header = ["ply", "format binary_little_endian 1.0", f"comment unit: {unit}"]
    header += [f"element vertex {len(vertices)}"]
    header += [f"property {kind} {name}" for kind, name in zip(types, names, strict=True)]
    return "\n".join([*header, "end_header", ""]).encode() + vertices.tobytes()
