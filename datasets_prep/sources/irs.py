"""IRS: rendered indoor stereo of robots' views, with exact disparity.

Where: https://github.com/HKBU-HPML/IRS (Q. Wang et al., "IRS: A Large Naturalistic Indoor Robotics Stereo
Dataset to Train Deep Models for Disparity and Surface Normal Estimation", ICME 2021). Licence: the repository
is Apache-2.0; the data have no separate licence.

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
authors' debugging, for instance `Restaurant/SCLRestaurant001_NightFall/d_377.exr`. They are recognised by
this difference.
"""

import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.maps import decode_exr
from datasets_prep.sources.base import RawSample, lists_named_by_split
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

METRE_PIXELS = 48.0
"""Focal length times baseline: depth in metres is this divided by the disparity in pixels."""

_CHANNELS = ("G", "R")


class IRS(PairedSource):
    """IRS, left camera, as published; see the module's docstring."""

    name = "irs"
    target_kind = "metric"
    layout = (
        "{Home,Office,Restaurant,Store}/<scene>/l_<id>.png\n{Home,Office,Restaurant,Store}/<scene>/d_<id>.exr"
    )
    pattern = re.compile(
        r"(?:.*/)?(?P<scene>(?:Home|Office|Restaurant|Store)/[^/]+)/"
        r"(?:l_(?P<image>\d{1,9})\.png|d_(?P<depth>\d{1,9})\.exr)"
    )
    scope = ("scene",)
    digits = 9
    missing = (("depth", "no disparity d_{name}.exr"), ("image", "no image l_{name}.png"))
    list_pattern = lists_named_by_split("list")

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: a scene is a group."""
        return Sample(f"{scope}/{int(name):05d}", files, group=scope)

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The sample of the left image in `columns`, whose number may be padded differently."""
        match = self.pattern.fullmatch(columns[0])
        return f"{match['scene']}/{int(match['image']):05d}" if match and match["image"] else None

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a left image and its inverse depth in 1/metres."""
        disparity = decode_exr(root.read_bytes(sample.files["depth"]), "depth", _CHANNELS)
        valid = np.isfinite(disparity) & (disparity > 0)
        if not valid.any():
            raise BadSample("depth map is empty: no pixel has a positive disparity")
        inverse_depth = np.where(valid, disparity, 0).astype(np.float32) / np.float32(METRE_PIXELS)
        return RawSample(read_image(root, sample), inverse_depth, "inverse_depth", valid)
