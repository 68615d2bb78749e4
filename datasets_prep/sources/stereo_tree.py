"""The tree that the scripts of 3DVideos2Stereo and `dpt stereo` write.

image_left/<folder>/<clip>/out<8 digits>.jpg
disparity/<folder>/<clip>/out<8 digits>.png      16 bits, value = offset + scale · stored, in pixels
uncertainty/<folder>/<clip>/out<8 digits>.png    8 bits, tenths of a pixel
"""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from datasets_prep.errors import BadSample
from datasets_prep.formats.disparity_png import decode_disparity, decode_uncertainty
from datasets_prep.formats.pictures import image_size
from datasets_prep.settings import Split
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

MAX_UNCERTAINTY = 2.0
"""A pixel is valid where forward and backward flow agree better than this, in pixels of the disparity map."""

FOLDERS = {"image": "image_left", "depth": "disparity", "uncertainty": "uncertainty"}
"""Role of a file → its folder."""

ENDINGS = {"image": "jpg", "depth": "png", "uncertainty": "png"}
"""Role of a file → the ending of its name."""


def tree_layout(clip: str) -> str:
    """The lines of `Source.layout` for a tree whose frames lie in `clip`, such as `<film>/chapter<N>`."""
    return "\n".join(f"{folder}/{clip}/out<8 digits>.{ENDINGS[role]}" for role, folder in FOLDERS.items())


def tree_pattern(clip: str) -> re.Pattern[str]:
    """Matches the files of a tree whose frames lie in `<folder>/<clip>`; `clip` is a regular expression."""
    frame = rf"[^/]+/{clip}/out\d{{8}}"
    roles = (rf"{folder}/(?P<{role}>{frame})\.{ENDINGS[role]}" for role, folder in FOLDERS.items())
    return re.compile("|".join(roles))


class StereoTree(PairedSource):
    """A dataset in such a tree; `split_of_video` maps first folders of sample ids to official splits.

    Image and disparity of a good sample may differ in size: the authors keep disparity at half resolution.
    """

    target_kind = "affine"
    sizes_may_differ = True
    missing = tuple(FOLDERS.items())
    split_of_video: ClassVar[Mapping[str, Split]] = {}

    def reason(self, scope: str, name: str, lacking: Sequence[str]) -> str:
        """See `PairedSource.reason`: names all folders in which the sample is missing."""
        return f"{name} is missing from {' and '.join(lacking)}"

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: a film or video is a group."""
        video = name.split("/")[0]
        return Sample(name, files, group=video, split=self.split_of_video.get(video))

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a left view and its disparity in pixels, larger is nearer.

        Raises BadSample, also if the image's size is neither the disparity's nor a whole multiple of it.
        """
        disparity = decode_disparity(root.read_bytes(sample.files["depth"]))
        uncertainty = decode_uncertainty(root.read_bytes(sample.files["uncertainty"]))
        height, width = disparity.shape
        if uncertainty.shape != disparity.shape:
            rows, columns = uncertainty.shape
            raise BadSample(f"depth is {width}x{height}, its uncertainty {columns}x{rows}")
        image = read_image(root, sample)
        rows, columns = image_size(image)
        factor = max(1, rows // height)
        if (rows // factor, columns // factor) != (height, width):
            sizes = f"image is {columns}x{rows}, its disparity {width}x{height}"
            raise BadSample(f"{sizes}: expected the same size, or half of it")
        return RawSample(image, disparity, "inverse_depth", valid=uncertainty < MAX_UNCERTAINTY)
