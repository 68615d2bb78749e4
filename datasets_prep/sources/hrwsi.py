"""HRWSI: 20,778 high-resolution web stereo photos with disparity.

Where: https://kexianhust.github.io/Structure-Guided-Ranking-Loss (K. Xian et al., "Structure-Guided Ranking
Loss for Single Image Depth Prediction", CVPR 2020). Licence: research only, non-commercial.

Layout: `{train,val}/{imgs/*.jpg, gts/*.png, valid_masks/*.png}` with the same stems, in a folder `HRWSI`.
20,378 photos for training and 400 for validation, an official split. Right views are a separate download and
not needed.

Values: disparity from optical flow between Flickr stereo pairs, so inverse depth up to scale and shift;
larger is nearer. Grey PNG of 8 bits; 16 are read too.

Invalid pixels: where the mask is 0 (it is 0 or 255): forward and backward flow disagree. Sky was found by
segmentation and set to the far end by the authors, and cannot be told from the values alone.

Known defects: in some copies a map or a mask is missing; such photos are left out with the reason.
"""

from __future__ import annotations

import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

_FILE = re.compile(
    r"(?:HRWSI/)?(?P<split>train|val)/"
    r"(?:imgs/(?P<image>[^/]+)\.jpg|gts/(?P<depth>[^/]+)\.png|valid_masks/(?P<mask>[^/]+)\.png)"
)
_FOLDERS = {"image": "imgs", "depth": "gts", "mask": "valid_masks"}


class HRWSI(Source):
    """HRWSI as published; see the module's docstring."""

    name = "hrwsi"
    target_kind = "affine"
    layout = "{train,val}/imgs/<id>.jpg\n{train,val}/gts/<id>.png\n{train,val}/valid_masks/<id>.png"

    def list(self, root: Folder) -> Listing:
        """Group photos, maps and masks by stem within each split."""
        groups: dict[tuple[str, str], dict[str, str]] = {}
        for path in root.files():
            if match := _FILE.fullmatch(path):
                role = str(match.lastgroup)
                groups.setdefault((match["split"], match[role]), {})[role] = path
        listing = Listing()
        for (split, stem), files in sorted(groups.items()):
            missing = [folder for role, folder in _FOLDERS.items() if role not in files]
            if missing:
                present = next(iter(files.values()))
                reason = f"{stem} is missing from {' and '.join(f'{split}/{folder}' for folder in missing)}"
                listing.rejected.append(Rejection(present, reason))
            else:
                sample_id = f"{split}/{stem}"
                listing.samples.append(Sample(sample_id, files, group=sample_id, split=split))
        return listing

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a photo, its disparity scaled to [0, 1], and its mask."""
        disparity = formats.decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
        mask = formats.decode_grey_png(root.read_bytes(sample.files["mask"]), "mask")
        if disparity.shape != mask.shape:
            (height, width), (mask_height, mask_width) = disparity.shape, mask.shape
            raise BadSample(f"depth is {width}x{height}, its mask {mask_width}x{mask_height}")
        inverse_depth = disparity.astype(np.float32) / np.float32(np.iinfo(disparity.dtype).max)
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        return RawSample(image, inverse_depth, "inverse_depth", valid=mask > 0)
