"""ETH3D: photos of buildings and landscapes with laser-scanned depth; zero-shot evaluation.

Where: https://www.eth3d.net, "high-res multi-view", training images (distorted) and depth (T. Schöps et al.,
"A Multi-View Stereo Benchmark with High-Resolution Images and Multi-Camera Videos", CVPR 2017). Licence:
CC BY-NC-SA 4.0.

Layout: `<scene>/images/dslr_images/DSC_<number>.JPG` and
`<scene>/ground_truth_depth/dslr_images/DSC_<number>.JPG`. The second is no JPEG in spite of its name, but
float32 rows without a header, of the image's size (6048×4032: 97,542,144 bytes). Any folders above the scene
are accepted. 454 photos of 13 scenes.

The depth belongs to the original, distorted images (`dslr_images`), not to `dslr_images_undistorted`.

Values: planar depth in metres, at the laser's points only. Invalid pixels: infinity; 0 and NaN are treated
the same. Sky is not marked. Evaluation leaves out what is beyond 72 m.

Splits: all photos are `test`, which keeps its native bytes; a list of Marigold's form (`<image> <depth>`) may
choose. A scene is a group.
"""

from __future__ import annotations

import re

import numpy as np

from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source, files_by_sample
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

_FILE = re.compile(
    r"(?:.*/)?(?P<scene>[^/]+)/"
    r"(?:images/dslr_images/(?P<image>[^/]+)\.JPG|ground_truth_depth/dslr_images/(?P<depth>[^/]+)\.JPG)"
)


class ETH3D(Source):
    """ETH3D, high resolution, as published; see the module's docstring."""

    name = "eth3d"
    target_kind = "metric"
    layout = "<scene>/images/dslr_images/<name>.JPG\n<scene>/ground_truth_depth/dslr_images/<name>.JPG"
    native_splits = frozenset({"test"})

    def list(self, root: Folder) -> Listing:
        """Pair photos and depth by scene and name."""
        listing = Listing()
        groups = files_by_sample(root.files(), _FILE, "scene", listing)
        for (scene, name), files in groups.items():
            if "depth" not in files:
                reason = f"no depth {scene}/ground_truth_depth/dslr_images/{name}.JPG"
                listing.rejected.append(Rejection(files["image"], reason))
            elif "image" not in files:
                reason = f"no image {scene}/images/dslr_images/{name}.JPG"
                listing.rejected.append(Rejection(files["depth"], reason))
            else:
                listing.samples.append(Sample(f"{scene}/{name}", files, group=scene, split="test"))
        return listing

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """Scene and name of a photo."""
        match = _FILE.fullmatch(columns[0])
        return f"{match['scene']}/{match['image']}" if match and match["image"] else None

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a photo and its depth in metres; the photo's header gives the depth's size."""
        image = root.read_bytes(sample.files["image"])
        height, width = formats.image_size(image)
        depth = maps.decode_raw_floats(root.read_bytes(sample.files["depth"]), "depth", height, width)
        valid = np.isfinite(depth) & (depth > 0)
        depth[~valid] = 0
        return RawSample(image, depth, "depth", valid)
