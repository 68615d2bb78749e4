"""TartanAir V1: simulated flights through 18 environments, with exact metric depth.

Where: https://theairlab.org/tartanair-dataset, scripts at https://github.com/castacks/tartanair_tools
(W. Wang et al., "TartanAir: A Dataset to Push the Limits of Visual SLAM", IROS 2020). Licence: CC BY 4.0.

Layout: `<env>/{Easy,Hard}/P<3 digits>/image_left/<6 digits>_left.png` and
`…/depth_left/<6 digits>_left_depth.npy`. The archives unpack to a doubled environment folder
(`abandonedfactory/abandonedfactory/Easy/P000`), and some users keep a folder for each modality above the
trajectory (`Easy/depth_left/P000/depth_left`); any folders above the environment, and both forms, are
accepted. Left camera only, about 306,000 frames of 640×480 in 36 archives; fx = fy = 320, cx = 320, cy = 240.

Values: planar depth in metres. The documentation says 16-bit; the files are float32 whose every value fits
half precision.

Invalid pixels: 0 and values that are not finite. Sky has a large finite depth (10,000 is typical); from
1,000 m on a pixel is reported as sky. In the environment `amusement` the sky is a dome at close distance:
there pixels with label 182 of `seg_left/<6 digits>_left_seg.npy` are invalid (not sky: the label also covers
a few other things), and frames without that file are left out.

Splits: none official for depth. An environment is a group, with all its trajectories: they fly through the
same place, and a network that has seen one has seen the others.

TartanAir V2 (`Data_easy/P000/image_lcam_front/…`) has other files and is refused with an error.
"""

import re

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats.maps import decode_npy
from datasets_prep.sources.base import Listing, RawSample, Rejection
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

SKY_METRES = 1000.0
"""Depth from which a pixel is sky: no environment is that large, and the sky sphere is far beyond."""

SEGMENTATION_OF_DOME = 182
"""Label of the sky dome in the environment `amusement`."""

_VERSION_2 = re.compile(r"(?:.*/)?Data_(?:easy|hard)/P\d+/(?:image|depth)_[lr]cam_\w+/.*")
_DOME_ENVIRONMENT = "amusement"


class TartanAir(PairedSource):
    """TartanAir V1, left camera, as published; see the module's docstring."""

    name = "tartanair"
    target_kind = "metric"
    layout = (
        "<env>/{Easy,Hard}/P<3 digits>/image_left/<6 digits>_left.png\n"
        "<env>/{Easy,Hard}/P<3 digits>/depth_left/<6 digits>_left_depth.npy"
    )
    pattern = re.compile(
        r"(?:.*/)?(?P<env>[^/]+)/(?P<difficulty>Easy|Hard)/"
        r"(?:(?:image|depth|seg)_left/)?(?P<number>P\d{3})/"
        r"(?:image_left/(?P<image>\d{6})_left\.png"
        r"|depth_left/(?P<depth>\d{6})_left_depth\.npy"
        r"|seg_left/(?P<seg>\d{6})_left_seg\.npy)"
    )
    scope = ("env", "difficulty", "number")
    missing = (
        ("depth", "no depth depth_left/{name}_left_depth.npy"),
        ("image", "no image image_left/{name}_left.png"),
    )

    def list(self, root: Folder) -> Listing:
        """See `PairedSource.list`; raises WrongLayout if `root` holds TartanAir V2."""
        if path := next((path for path in root.files() if _VERSION_2.fullmatch(path)), None):
            raise WrongLayout(f"{path} belongs to TartanAir V2, which cannot be read; expected V1")
        return super().list(root)

    def add(self, listing: Listing, scope: str, name: str, files: dict[str, str]) -> None:
        """See `PairedSource.add`: labels are needed where the sky is a dome, and dropped elsewhere."""
        paired = {"image", "depth"} <= files.keys()
        has_dome = scope.startswith(f"{_DOME_ENVIRONMENT}/")
        if paired and has_dome and "seg" not in files:
            reason = f"no seg_left/{name}_left_seg.npy, needed to mask the sky dome of {_DOME_ENVIRONMENT}"
            listing.rejected.append(Rejection(files["image"], reason))
            return
        if not (paired and has_dome):
            files.pop("seg", None)
        if files:
            super().add(listing, scope, name, files)

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a frame and its depth in metres."""
        depth = _decode_map(root.read_bytes(sample.files["depth"]), "depth", kinds="f").astype(np.float32)
        positive = depth > 0
        sky = positive & (depth >= SKY_METRES) & np.isfinite(depth)
        valid = positive & (depth < SKY_METRES)
        if "seg" in sample.files:
            labels = _decode_map(root.read_bytes(sample.files["seg"]), "seg", kinds="u")
            if labels.shape != depth.shape:
                raise BadSample(f"seg has shape {labels.shape}, depth {depth.shape}")
            valid &= labels != SEGMENTATION_OF_DOME
        depth[~valid] = 0
        return RawSample(read_image(root, sample), depth, "depth", valid, sky)


def _decode_map(data: bytes, role: str, kinds: str) -> NDArray[np.generic]:
    values = decode_npy(data, role)
    if values.ndim != 2 or values.dtype.kind not in kinds or not values.size:
        raise BadSample(f"{role} NPY holds {values.shape} {values.dtype}, expected a map")
    return values
