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
pixels; for targets up to scale, which this source gives by default, the factor does not matter. With
`options.disparity_factor` set to 1 or 200, depth is metric, by the cameras' focal length (2301.3 pixels) and
baseline (0.36 m, as measured by users; the release does not state it).

Invalid pixels: 65535 and 0. In the official evaluation files the pixels that are not 65535 are exactly those
of the two masks (`fg_mask`, `bg_mask`), so the masks add nothing. Maps must be read with 16 bits: readers
that reduce them to 8 make 65535 a near point. Sky lies outside the masks and is not marked.

Splits: none. The frames are video; those of one minute are a group.
"""

import re
from collections.abc import Mapping

import numpy as np

from datasets_prep.errors import WrongLayout
from datasets_prep.sources.base import RawSample, Source, TargetKind
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image, read_png16
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

METRE_PIXELS = 2301.3147 * 0.36
"""Focal length times baseline: depth in metres is this divided by the disparity in pixels."""

_INVALID = 65535
_FACTORS = (1, 200)
_DIGITS_OF_MINUTE = len("171206_0345")


class ApolloScape(PairedSource):
    """ApolloScape stereo, left camera, as published; see the module's docstring.

    Args:
        disparity_factor: stored units per pixel of disparity; with None, `target_kind` is up-to-scale.
    """

    name = "apolloscape"
    target_kind: TargetKind = "up-to-scale"
    layout = (
        "stereo_train_<3 digits>/camera_5/<date>_<time>_Camera_5.jpg\n"
        "stereo_train_<3 digits>/disparity/<date>_<time>_Camera_5.png"
    )
    pattern = re.compile(
        r"(?:.*/)?(?P<part>stereo_train_\d{3})/"
        r"(?:camera_5/(?P<image>\d{6}_\d{9})_Camera_5\.jpg|disparity/(?P<depth>\d{6}_\d{9})_Camera_5\.png)"
    )
    scope = ("part",)
    missing = (("depth", "no disparity/{name}_Camera_5.png"), ("image", "no camera_5/{name}_Camera_5.jpg"))

    def __init__(self, disparity_factor: int | None = None) -> None:
        self._factor = disparity_factor
        if disparity_factor is not None:
            self.target_kind = "metric"

    def opened(self, root: Folder, options: Mapping[str, object]) -> Source:
        """The source for `root`, metric if `options` has `disparity_factor`; see `Source.opened`."""
        factor = options.get("disparity_factor")
        if set(options) - {"disparity_factor"}:
            raise WrongLayout(f"options: apolloscape has disparity_factor only, got {sorted(options)}")
        if factor is not None and factor not in _FACTORS:
            raise WrongLayout(f"options.disparity_factor: expected 1 or 200, got {factor!r}")
        return ApolloScape(None if factor is None else int(str(factor)))

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: the frames of one minute are a group."""
        return Sample(f"{scope}/{name}", files, group=f"{scope}/{name[:_DIGITS_OF_MINUTE]}")

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a left image and its disparity."""
        stored = read_png16(root, sample, "ApolloScape stores disparity")
        valid = (stored != _INVALID) & (stored > 0)
        unit = 1.0 if self._factor is None else 1.0 / (self._factor * METRE_PIXELS)
        inverse_depth = np.where(valid, stored, 0).astype(np.float32) * np.float32(unit)
        return RawSample(read_image(root, sample), inverse_depth, "inverse_depth", valid)
