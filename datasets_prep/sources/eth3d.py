"""ETH3D: photos of buildings and landscapes with laser-scanned depth; zero-shot evaluation.

Where: https://www.eth3d.net, "high-res multi-view", training images (distorted) and depth (T. Schöps et al.,
"A Multi-View Stereo Benchmark with High-Resolution Images and Multi-Camera Videos", CVPR 2017). Licence:
CC BY-NC-SA 4.0.

Layout: `<scene>/images/dslr_images/DSC_<number>.JPG` and
`<scene>/ground_truth_depth/dslr_images/DSC_<number>.JPG`. The second is not a JPEG despite its name, but
float32 rows without a header, of the image's size (6048×4032: 97,542,144 bytes). Any folders above the scene
are accepted. 454 photos of 13 scenes.

The depth belongs to the original, distorted images (`dslr_images`), not to `dslr_images_undistorted`.

Values: planar depth in metres, at the laser's points only. Invalid pixels: infinity; 0 and NaN are treated
the same. Sky is not marked. Evaluation ignores depth beyond 72 m.

Splits: all photos are `test`, which keeps its native bytes; a list in Marigold's form (`<image> <depth>`)
may select among them. A scene is a group.
"""

import re

from datasets_prep.formats.maps import decode_raw_floats
from datasets_prep.formats.pictures import image_size
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import of_positive_depth, read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder


class ETH3D(PairedSource):
    """ETH3D, high resolution, as published; see the module's docstring."""

    name = "eth3d"
    target_kind = "metric"
    layout = "<scene>/images/dslr_images/<name>.JPG\n<scene>/ground_truth_depth/dslr_images/<name>.JPG"
    only_split = "test"
    evaluation_splits = frozenset({"test"})
    pattern = re.compile(
        r"(?:.*/)?(?P<scene>[^/]+)/"
        r"(?:images/dslr_images/(?P<image>[^/]+)\.JPG|ground_truth_depth/dslr_images/(?P<depth>[^/]+)\.JPG)"
    )
    scope = ("scene",)
    missing = (
        ("depth", "no depth {scope}/ground_truth_depth/dslr_images/{name}.JPG"),
        ("image", "no image {scope}/images/dslr_images/{name}.JPG"),
    )

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """Scene and name of the photo in `columns`."""
        match = self.pattern.fullmatch(columns[0])
        return f"{match['scene']}/{match['image']}" if match and match["image"] else None

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and metric depth, whose size the photo's header gives."""
        image = read_image(root, sample)
        depth = decode_raw_floats(root.read_bytes(sample.files["depth"]), "depth", *image_size(image))
        return of_positive_depth(image, depth)
