"""ReDWeb V1: 3,600 web stereo photos with relative depth.

Where: https://sites.google.com/site/redwebcvpr18 (K. Xian et al., "Monocular Relative Depth Perception with
Web Stereo Data Supervision", CVPR 2018), a zip. Licence: research only, not redistributable.

Layout: `Imgs/<id>.jpg` and `RDs/<id>.png` with the same stem, in a folder `ReDWeb_V1`. Landscape and portrait
photos of many sizes; a map may have another size than its image. Maps are 8-bit PNG, some with the one
channel stored three times.

Values: relative, without a unit. Larger is farther: 0 is the nearest point, 255 sky or background. MiDaS
reads the maps as negative disparity, and so does this reader: inverse depth = (255 − RD) / 255, known up to
scale and shift.

Invalid pixels: none except 255, which is reported as sky. As a plain value it is the far end of the scale,
where sky belongs; but a reader that zeroes "invalid" pixels before it inverts turns sky into the nearest
surface, the best-known trap of this dataset.

Splits: none official; each photo is its own group.
"""

import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

_SKY = 255


class ReDWeb(PairedSource):
    """ReDWeb V1 as published; see the module's docstring."""

    name = "redweb"
    target_kind = "affine"
    layout = "Imgs/<id>.jpg\nRDs/<id>.png"
    sizes_may_differ = True
    pattern = re.compile(r"(?:ReDWeb_V1/)?(?:Imgs/(?P<image>[^/]+)\.jpg|RDs/(?P<depth>[^/]+)\.png)")
    missing = (("depth", "no map RDs/{name}.png"), ("image", "no image Imgs/{name}.jpg"))

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and its map as inverse depth in [0, 1], sky at 0."""
        depth = decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
        if depth.dtype != np.uint8:
            raise BadSample("depth PNG has 16 bits, ReDWeb maps have 8")
        sky = depth == _SKY
        inverse_depth = (_SKY - depth).astype(np.float32) / np.float32(_SKY)
        return RawSample(read_image(root, sample), inverse_depth, "inverse_depth", valid=~sky, sky=sky)
