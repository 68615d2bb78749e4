"""Reading that many sources share: image bytes, and depth in a 16-bit PNG or an array."""

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_grey_png, image_size
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder


def read_image(root: Folder, sample: Sample) -> bytes:
    """The bytes of the image of `sample` below `root`.

    Raises BadSample if they are neither JPEG nor PNG, or the header is damaged.
    """
    image = root.read_bytes(sample.files["image"])
    image_size(image)
    return image


def read_png16(root: Folder, sample: Sample, expected: str) -> NDArray[np.uint16]:
    """The values of the 16-bit PNG `depth` of `sample` below `root`, (H, W) uint16.

    `expected` is what the dataset stores, for the error: `KITTI stores depth`. Raises BadSample if the PNG is
    damaged or has 8 bits.
    """
    stored = decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
    if stored.dtype != np.uint16:
        raise BadSample(f"depth PNG has 8 bits, {expected} in 16")
    return stored.astype(np.uint16, copy=False)


def read_png_depth(root: Folder, sample: Sample, expected: str, units_of_metre: float) -> RawSample:
    """Image and metric depth of `sample` below `root`, whose 16-bit PNG has 0 where depth is unknown.

    `units_of_metre` is the stored value of one metre, `expected` is as in `read_png16`. Raises BadSample if
    image or depth are damaged, or depth has 8 bits.
    """
    stored = read_png16(root, sample, expected)
    image = read_image(root, sample)
    return RawSample(image, stored.astype(np.float32) / np.float32(units_of_metre), "depth", stored > 0)


def of_positive_depth(image: bytes, depth: NDArray[np.float32]) -> RawSample:
    """The bytes `image` with (H, W) float32 `depth`, valid where finite and positive, set to 0 elsewhere."""
    valid = np.isfinite(depth) & (depth > 0)
    depth[~valid] = 0
    return RawSample(image, depth, "depth", valid)
