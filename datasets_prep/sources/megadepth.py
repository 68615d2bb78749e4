"""MegaDepth v1: internet photos of landmarks with depth from structure from motion.

Where: https://www.cs.cornell.edu/projects/megadepth (Z. Li and N. Snavely, "MegaDepth: Learning Single-View
Depth Prediction from Internet Photos", CVPR 2018), 199 GB. Licence: CC BY 4.0 for the depth; the photos are
from Flickr, under various rights.

Layout: `…/<scene 4 digits>/dense<number>/imgs/<name>.{jpg,png,JPG}` and `…/depths/<name>.h5`; in the archive
below `phoenix/S6/zl548/MegaDepth_v1/`. About 130,000 photos of 196 scenes. The number of `dense`
folders is not limited.

Values: HDF5, one dataset `/depth`, float32, of the photo's size; planar depth in the unit of each
reconstruction, so up to scale.

Invalid pixels: 0, often more than half. As the authors do in training (and MiDaS after them), values above
the 98th percentile are dropped, then those below the first percentile of the rest: both ends are mostly
errors of the reconstruction. Sky is never reconstructed and not marked.

Some files hold an ordinal map under the same name: labels for foreground and background, not depth. They have
negative values, or only a few small whole numbers, and are refused.

Splits: the authors' lists, `{train,val,test}_list/{landscape,portrait}/imgs_MD.p`, which are pickled lists of
paths and are read without executing them; text with one path per line is read too. Without lists, none. A
scene is a group.

Known defects: maps that are all 0 (refused); grey and RGBA photos.
"""

import re

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.hdf5 import decode_hdf5_array
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

_POSITIVE = 1e-8
_MAX_LABELS = 8


class MegaDepth(PairedSource):
    """MegaDepth v1 as published; see the module's docstring."""

    name = "megadepth"
    target_kind = "up-to-scale"
    layout = "<scene>/dense<number>/imgs/<name>.jpg\n<scene>/dense<number>/depths/<name>.h5"
    lists_start_with_slash = True
    pattern = re.compile(
        r"(?:.*/)?(?P<scene>\d{4})/(?P<dense>dense\d+)/"
        r"(?:imgs/(?P<image>[^/]+)\.(?:jpg|png|JPG|jpeg|JPEG|PNG)|depths/(?P<depth>[^/]+)\.h5)"
    )
    scope = ("scene", "dense")
    missing = (("depth", "no depth map depths/{name}.h5"), ("image", "no image imgs/{name}.*"))
    list_pattern = re.compile(
        r"(?:.*/)?(?:(?P<train>train)|(?P<val>val)|(?P<test>test))_list/(?:\w+/)?imgs_MD\.p"
    )

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """Scene, reconstruction and name of the photo in `columns`."""
        match = self.pattern.fullmatch(columns[0])
        return f"{match['scene']}/{match['dense']}/{match['image']}" if match and match["image"] else None

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and its depth, without its nearest and farthest outliers."""
        data = root.read_bytes(sample.files["depth"])
        depth = decode_hdf5_array(data, "depth", "depth", 2).astype(np.float32)
        valid = np.isfinite(depth) & (depth > _POSITIVE)
        _refuse_ordinal(depth)
        if not valid.any():
            raise BadSample("depth map is empty: no pixel was reconstructed")
        valid = _without_outliers(depth, valid)
        depth[~valid] = 0
        return RawSample(read_image(root, sample), depth, "depth", valid)


def _refuse_ordinal(depth: NDArray[np.float32]) -> None:
    if (depth < 0).any():
        raise BadSample("depth map is ordinal (negative labels), not metric depth")
    # A sample of the pixels settles it for real depth, without sorting a million values.
    if np.unique(depth[::7, ::7]).size <= _MAX_LABELS:
        labels = np.unique(depth[np.isfinite(depth)])
        if 1 < labels.size <= _MAX_LABELS and (labels == np.round(labels)).all():
            raise BadSample(f"depth map is ordinal (labels {labels.astype(int).tolist()}), not metric depth")


def _without_outliers(depth: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if np.count_nonzero(valid) <= 10:
        return valid
    valid = valid & (depth <= np.percentile(depth[valid], 98))
    return valid & (depth >= np.percentile(depth[valid], 1))
