"""HRWSI: 20,778 high-resolution web stereo photos with disparity.

Where: https://kexianhust.github.io/Structure-Guided-Ranking-Loss (K. Xian et al., "Structure-Guided Ranking
Loss for Single Image Depth Prediction", CVPR 2020). Licence: research only, non-commercial.

Layout: `{train,val}/{imgs/*.jpg, gts/*.png, valid_masks/*.png}` with the same stems, in a folder `HRWSI`.
20,378 photos for training and 400 for validation, an official split. Right views are a separate download and
not needed.

Values: disparity from optical flow between Flickr stereo pairs, so inverse depth up to scale and shift;
larger is nearer. Grey PNG of 8 bits; 16 are read too.

Invalid pixels: where the mask is 0 (it is 0 or 255): forward and backward flow disagree. Sky was found by
segmentation and set to the far end by the authors, and cannot be recognised by the values alone.

Known defects: in some copies a map or a mask is missing; these photos are rejected.
"""

import re
from collections.abc import Sequence

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder


class HRWSI(PairedSource):
    """HRWSI as published; see the module's docstring."""

    name = "hrwsi"
    target_kind = "affine"
    layout = "{train,val}/imgs/<id>.jpg\n{train,val}/gts/<id>.png\n{train,val}/valid_masks/<id>.png"
    pattern = re.compile(
        r"(?:HRWSI/)?(?P<split>train|val)/"
        r"(?:imgs/(?P<image>[^/]+)\.jpg|gts/(?P<depth>[^/]+)\.png|valid_masks/(?P<mask>[^/]+)\.png)"
    )
    scope = ("split",)
    missing = (("image", "imgs"), ("depth", "gts"), ("mask", "valid_masks"))

    def reason(self, scope: str, name: str, lacking: Sequence[str]) -> str:
        """See `PairedSource.reason`: names all folders in which the sample is missing."""
        return f"{name} is missing from {' and '.join(f'{scope}/{folder}' for folder in lacking)}"

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: each photo is its own group."""
        return Sample(f"{scope}/{name}", files, group=f"{scope}/{name}", split=scope)

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo, its disparity scaled to [0, 1], and its mask."""
        disparity = decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
        mask = decode_grey_png(root.read_bytes(sample.files["mask"]), "mask")
        if disparity.shape != mask.shape:
            (height, width), (mask_height, mask_width) = disparity.shape, mask.shape
            raise BadSample(f"depth is {width}x{height}, its mask {mask_width}x{mask_height}")
        inverse_depth = disparity.astype(np.float32) / np.float32(np.iinfo(disparity.dtype).max)
        return RawSample(read_image(root, sample), inverse_depth, "inverse_depth", valid=mask > 0)
