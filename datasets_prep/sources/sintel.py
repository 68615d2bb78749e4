"""MPI Sintel: frames of an animated film with exact depth; zero-shot evaluation.

Where: http://sintel.is.tue.mpg.de, the training archive and the depth archive (D. J. Butler et al., "A
Naturalistic Open Source Movie for Optical Flow Evaluation", ECCV 2012). Licence: CC BY 3.0 for the film;
research use of the data.

Layout: `training/final/<sequence>/frame_<4 digits>.png` and `training/depth/<sequence>/frame_<4 digits>.dpt`.
The pass `clean`, without blur and atmosphere, is not used. 1,064 frames of 1024×436 in 23 sequences.

Values: `.dpt`, planar depth in metres. Invalid pixels: none but 0 and what is not finite. Sky has a very
large depth and no label; evaluation leaves out what is beyond 72 m, and 19 frames lie wholly beyond.

Splits: all frames are `test`, which keeps its native bytes. A sequence is a group.
"""

from __future__ import annotations

import re

import numpy as np

from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

_FILE = re.compile(
    r"(?:.*/)?training/(?:final/(?P<image>[^/]+/frame_\d{4})\.png|depth/(?P<depth>[^/]+/frame_\d{4})\.dpt)"
)


class Sintel(Source):
    """MPI Sintel, final pass, as published; see the module's docstring."""

    name = "sintel"
    target_kind = "metric"
    layout = "training/final/<sequence>/frame_<4 digits>.png\ntraining/depth/<sequence>/frame_<4 digits>.dpt"
    native_splits = frozenset({"test"})

    def list(self, root: Folder) -> Listing:
        """Pair frames and depth by sequence and number."""
        images: dict[str, str] = {}
        depths: dict[str, str] = {}
        for path in root.files():
            if match := _FILE.fullmatch(path):
                found, frame = (images, match["image"]) if match["image"] else (depths, match["depth"])
                found[frame] = path
        listing = Listing()
        for frame in sorted(images.keys() | depths.keys()):
            if frame not in depths:
                listing.rejected.append(Rejection(images[frame], f"no depth training/depth/{frame}.dpt"))
            elif frame not in images:
                listing.rejected.append(Rejection(depths[frame], f"no image training/final/{frame}.png"))
            else:
                files = {"image": images[frame], "depth": depths[frame]}
                listing.samples.append(Sample(frame, files, group=frame.split("/")[0], split="test"))
        return listing

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a frame and its depth in metres."""
        depth = maps.decode_sintel_depth(root.read_bytes(sample.files["depth"]), "depth")
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        return RawSample(image, depth, "depth", valid=np.isfinite(depth) & (depth > 0))
