"""IRS: rendered indoor stereo of robots' views, with exact disparity.

Where: https://github.com/HKBU-HPML/IRS (Q. Wang et al., "IRS: A Large Naturalistic Indoor Robotics Stereo
Dataset to Train Deep Models for Disparity and Surface Normal Estimation", ICME 2021). Licence: the repository
is Apache-2.0; the data have no other.

Layout: `{Home,Office,Restaurant,Store}/<scene>/{l_,r_}<id>.png`, `d_<id>.exr` (disparity of the left view)
and `n_<id>.exr` (normals), in a folder `IRSDataset`. The id is unpadded in the first release (`l_1960.png`)
and has five digits later (`l_00001.png`). Left views only are used. 103,316 pairs of 960×540: home 31,145,
office 43,417, restaurant 22,058, store 6,696.

Values: OpenEXR, disparity in pixels in the channel `G` (or `R`, or the file's only channel). Focal length 480
pixels and baseline 0.1 m, so depth is 48 / disparity metres.

Invalid pixels: those without a finite positive disparity. Sky, seen through windows, has a tiny disparity and
is not marked.

Splits: the authors' lists (`*.list`, with `train` or `test` in their name; four columns l, r, d, n, sometimes
with `IRSDataset/` in front); else none. A scene is a group.

Known defects: a few disparity maps in the training list have another size than the image, left over from the
authors' debugging, for instance `Restaurant/SCLRestaurant001_NightFall/d_377.exr`. The difference in size
marks them as damaged.
"""

from __future__ import annotations

import posixpath
import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

METRE_PIXELS = 48.0
"""Focal length times baseline: depth in metres is this divided by the disparity in pixels."""

_FILE = re.compile(
    r"(?:.*/)?(?P<scene>(?:Home|Office|Restaurant|Store)/[^/]+)/"
    r"(?:l_(?P<image>\d{1,9})\.png|d_(?P<depth>\d{1,9})\.exr)"
)
_CHANNELS = ("G", "R")


class IRS(Source):
    """IRS, left camera, as published; see the module's docstring."""

    name = "irs"
    target_kind = "metric"
    layout = (
        "{Home,Office,Restaurant,Store}/<scene>/l_<id>.png\n{Home,Office,Restaurant,Store}/<scene>/d_<id>.exr"
    )

    def list(self, root: Folder) -> Listing:
        """Pair left images and disparity by scene and number."""
        listing = Listing()
        groups: dict[tuple[str, int], dict[str, str]] = {}
        for path in root.files():
            if match := _FILE.fullmatch(path):
                role = str(match.lastgroup)
                files = groups.setdefault((match["scene"], int(match[role])), {})
                if role in files:
                    listing.rejected.append(Rejection(path, f"second copy of {files[role]}"))
                else:
                    files[role] = path
        for (scene, number), files in sorted(groups.items()):
            if "depth" not in files:
                listing.rejected.append(Rejection(files["image"], f"no disparity d_{number}.exr"))
            elif "image" not in files:
                listing.rejected.append(Rejection(files["depth"], f"no image l_{number}.png"))
            else:
                listing.samples.append(Sample(f"{scene}/{number:05d}", files, group=scene))
        return listing

    def split_of_list(self, path: str) -> str | None:
        """The authors' lists end in `.list` and say in their names what they are of."""
        name = posixpath.basename(path).lower()
        return next((s for s in ("train", "test") if s in name), None) if name.endswith(".list") else None

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The sample of a left image, whose number may be padded otherwise than the file's."""
        match = _FILE.fullmatch(columns[0])
        return f"{match['scene']}/{int(match['image']):05d}" if match and match["image"] else None

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a left image and its inverse depth in 1/metres."""
        disparity = maps.decode_exr(root.read_bytes(sample.files["depth"]), "depth", _CHANNELS)
        valid = np.isfinite(disparity) & (disparity > 0)
        if not valid.any():
            raise BadSample("depth map is empty: no pixel has a positive disparity")
        inverse_depth = np.where(valid, disparity, 0).astype(np.float32) / np.float32(METRE_PIXELS)
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        return RawSample(image, inverse_depth, "inverse_depth", valid)
