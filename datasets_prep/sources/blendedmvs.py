"""BlendedMVS: photos blended with renderings of reconstructed scenes, with exact depth of the meshes.

Where: https://github.com/YoYo000/BlendedMVS (Y. Yao et al., "BlendedMVS: A Large-scale Dataset for
Generalized Multi-view Stereo Networks", CVPR 2020). Licence: CC BY 4.0.

Layout: `<project>/blended_images/<8 digits>.jpg`, `<project>/rendered_depth_maps/<8 digits>.pfm`, and
`<project>/cams/` (not needed here); a project is named by 24 hexadecimal digits. High-resolution archives
nest the project's folder in itself; any folders above it are accepted. `<8 digits>_masked.jpg` is the same
photo with the background blackened, and not used. 768×576 (27.5 GB) or 2048×1536. 113 projects, about 17,000
photos; with the extensions + and ++ 502 projects and 110,000.

Values: planar depth in the unit of each project's reconstruction, so up to scale. PFM, float32, bottom-up.

Invalid pixels: 0 is "no surface": sky, holes of the mesh and background alike, so sky cannot be
distinguished. NaN and infinity occur and are treated the same.

Splits: the authors' lists of projects, `BlendedMVS_training.txt` (106) and `validation_list.txt` (7, Windows
line ends), those for training also with + and ++ in their names; else none. A project is a group: its photos
overlap.

Known defects, stated by the authors: some depth maps, and some images, are entirely empty.
"""

import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.maps import decode_pfm
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import of_positive_depth, read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder


class BlendedMVS(PairedSource):
    """BlendedMVS, + and ++ as published; see the module's docstring."""

    name = "blendedmvs"
    target_kind = "up-to-scale"
    layout = "<project>/blended_images/<8 digits>.jpg\n<project>/rendered_depth_maps/<8 digits>.pfm"
    pattern = re.compile(
        r"(?:.*/)?(?P<project>[0-9a-f]{24})/"
        r"(?:blended_images/(?P<image>\d{8})\.jpg|rendered_depth_maps/(?P<depth>\d{8})\.pfm)"
    )
    scope = ("project",)
    missing = (
        ("depth", "no depth map rendered_depth_maps/{name}.pfm"),
        ("image", "no image blended_images/{name}.jpg"),
    )
    list_pattern = re.compile(
        r"(?:.*/)?(?:BlendedMV[SG][+]*_(?P<train>training)|(?P<val>validation)_list)\.txt"
    )

    def list_key(self, sample: Sample) -> str:
        """The project of `sample`, which is what lists name."""
        return sample.group

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and its depth, 0 where there is no surface."""
        depth = decode_pfm(root.read_bytes(sample.files["depth"]), "depth")
        if not (np.isfinite(depth) & (depth > 0)).any():
            raise BadSample("depth map is empty: no pixel shows a surface")
        return of_positive_depth(read_image(root, sample), depth)
