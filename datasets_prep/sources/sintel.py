"""MPI Sintel: frames of an animated film with exact depth; zero-shot evaluation.

Where: http://sintel.is.tue.mpg.de, the training archive and the depth archive (D. J. Butler et al., "A
Naturalistic Open Source Movie for Optical Flow Evaluation", ECCV 2012). Licence: CC BY 3.0 for the film;
research use of the data.

Layout: `training/final/<sequence>/frame_<4 digits>.png` and `training/depth/<sequence>/frame_<4 digits>.dpt`.
The pass `clean`, without blur and atmosphere, is not used. 1,064 frames of 1024×436 in 23 sequences.

Values: `.dpt`, planar depth in metres. Invalid pixels: only 0 and values that are not finite. Sky
has a very large depth and no label; evaluation ignores depth beyond 72 m, which leaves nothing of 19 frames.

Splits: all frames are `test`, which keeps its native bytes. A sequence is a group.
"""

import re

from datasets_prep.formats.maps import decode_sintel_depth
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import of_positive_depth, read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder


class Sintel(PairedSource):
    """MPI Sintel, final pass, as published; see the module's docstring."""

    name = "sintel"
    target_kind = "metric"
    layout = "training/final/<sequence>/frame_<4 digits>.png\ntraining/depth/<sequence>/frame_<4 digits>.dpt"
    only_split = "test"
    evaluation_splits = frozenset({"test"})
    pattern = re.compile(
        r"(?:.*/)?training/"
        r"(?:final/(?P<image>[^/]+/frame_\d{4})\.png|depth/(?P<depth>[^/]+/frame_\d{4})\.dpt)"
    )
    missing = (
        ("depth", "no depth training/depth/{name}.dpt"),
        ("image", "no image training/final/{name}.png"),
    )

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a frame and its depth in metres."""
        depth = decode_sintel_depth(root.read_bytes(sample.files["depth"]), "depth")
        return of_positive_depth(read_image(root, sample), depth)
