"""ApolloScape stereo: street scenes of Chinese cities with disparity from laser scans.

Where: https://apolloscape.auto/stereo.html, tools at https://github.com/ApolloScapeAuto/dataset-api (X. Huang
et al., "The ApolloScape Open Dataset for Autonomous Driving and its Application", TPAMI 2019). Licence: its
own non-commercial research terms.

Layout: `stereo_train_<3 digits>/camera_5/<date>_<time>_Camera_5.jpg` (left camera) and
`…/disparity/<date>_<time>_Camera_5.png`; the right camera, intrinsics and the masks are not needed. Any
folders above are accepted. About 4,200 left images. This is the stereo release; `road02_*` with its depth
maps belongs to the scene-parsing release, another product.

Values: 16-bit grey PNG, disparity of the laser points and fitted car models. The official site says that the
training files hold 200 times the disparity, users report otherwise, and the evaluation files hold whole
pixels; an unknown factor is no obstacle for targets up to scale, which is what this source gives. Who knows
the factor of his files sets `options.disparity_factor` to 1 or 200, and gets metric depth from the cameras'
focal length (2301.3 pixels) and baseline (0.36 m, as users measured; the release does not say).

Invalid pixels: 65535 and 0. In the official evaluation files the pixels that are not 65535 are exactly those
of the two masks (`fg_mask`, `bg_mask`), so the masks tell nothing more. They must be read with 16 bits:
readers that reduce them to 8 make 65535 a near point. Sky lies outside the masks and is not known.

Splits: none. The frames are video; those of one minute are a group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source, TargetKind, files_by_sample
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

METRE_PIXELS = 2301.3147 * 0.36
"""Focal length times baseline: depth in metres is this divided by the disparity in pixels."""

_INVALID = 65535
_FACTORS = (1, 200)
_FILE = re.compile(
    r"(?:.*/)?(?P<part>stereo_train_\d{3})/"
    r"(?:camera_5/(?P<image>\d{6}_\d{9})_Camera_5\.jpg|disparity/(?P<depth>\d{6}_\d{9})_Camera_5\.png)"
)
_DIGITS_OF_MINUTE = len("171206_0345")


class ApolloScape(Source):
    """ApolloScape stereo, left camera, as published; see the module's docstring."""

    name = "apolloscape"
    target_kind: TargetKind = "up-to-scale"
    layout = (
        "stereo_train_<3 digits>/camera_5/<date>_<time>_Camera_5.jpg\n"
        "stereo_train_<3 digits>/disparity/<date>_<time>_Camera_5.png"
    )

    def __init__(self, disparity_factor: int | None = None) -> None:
        self._factor = disparity_factor
        if disparity_factor is not None:
            self.target_kind = "metric"

    def opened(self, root: Folder, options: Mapping[str, object]) -> Source:
        """With `disparity_factor`, the stored units of one pixel, the target is metric."""
        factor = options.get("disparity_factor")
        if set(options) - {"disparity_factor"}:
            raise WrongLayout(f"options: apolloscape has disparity_factor only, got {sorted(options)}")
        if factor is not None and factor not in _FACTORS:
            raise WrongLayout(f"options.disparity_factor: expected 1 or 200, got {factor!r}")
        return ApolloScape(None if factor is None else int(str(factor)))

    def list(self, root: Folder) -> Listing:
        """Pair left images and disparity by time."""
        listing = Listing()
        groups = files_by_sample(root.files(), _FILE, "part", listing)
        for (part, time), files in groups.items():
            if "depth" not in files:
                reason = f"no disparity/{time}_Camera_5.png"
                listing.rejected.append(Rejection(files["image"], reason))
            elif "image" not in files:
                listing.rejected.append(Rejection(files["depth"], f"no camera_5/{time}_Camera_5.jpg"))
            else:
                group = f"{part}/{time[:_DIGITS_OF_MINUTE]}"
                listing.samples.append(Sample(f"{part}/{time}", files, group=group))
        return listing

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a left image and its disparity."""
        stored = formats.decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
        if stored.dtype != np.uint16:
            raise BadSample("depth PNG has 8 bits, ApolloScape stores disparity in 16")
        valid = (stored != _INVALID) & (stored > 0)
        unit = 1.0 if self._factor is None else 1.0 / (self._factor * METRE_PIXELS)
        inverse_depth = np.where(valid, stored, 0).astype(np.float32) * np.float32(unit)
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        return RawSample(image, inverse_depth, "inverse_depth", valid)
