"""3D Movies: stereo films on Blu-ray, the largest dataset of MiDaS; the user needs the discs.

Where: the films of the list below, and the authors' scripts and lists of frames at
https://github.com/lasinger/3DVideos2Stereo (R. Ranftl et al., "Towards Robust Monocular Depth Estimation:
Mixing Datasets for Zero-shot Cross-dataset Transfer", TPAMI 2022). Licence: the scripts are MIT; the films
are not redistributable, and no data computed from them are published.

There is no ground truth: `dpt stereo movies --videos FOLDER --out RAW` computes it from the videos, optical
flow between the two views, and writes the tree that the authors' scripts write. A tree made by those scripts
is read as well. Discs hold MVC video; the authors' `convertToSbs.sh` turns it into side-by-side video of
3840×1080.

Layout: `image_left/<film>/chapter<N>/out<8 digits>.jpg`, 1880×800 (the bars of 2.35:1 films and of floating
windows cut off); `disparity/….png` and `uncertainty/….png`, half of that, 940×400. Frame numbers count from 1
in each chapter, at the full 24 per second.

Values: disparity in pixels of its own map, 16-bit PNG with the texts `offset` and `scale` (disparity = offset
+ scale · stored). Films move the plane of the screen for dramatic effect, so disparity has an unknown
shift, is negative behind that plane, and means inverse depth up to scale and shift.

Invalid pixels: where forward and backward flow disagree by 2 px or more (`uncertainty` has tenths of a
pixel). The authors found sky by segmentation and set it to the image's smallest disparity; `dpt stereo --sky`
does the same with masks of the user. It cannot be recognised by the values alone.

Splits: official, by film: 75,074 frames of 20 films for training (four per second of one-second clips), 3,058
of `gatsby` and `stepup_rev` for validation, 788 of `doctor_who` and `streetdance` for testing (one per
second). Other films have no official split. Where the authors' `train.txt`, `validation.txt` and `test.txt`
lie in the folder, or are given, only the frames that they name are taken. A film is a group.

Known defects: flow is wrong in textureless and reflecting areas where the consistency check does not notice;
fades, and scenes that were converted to 3D, have wrong or little depth. The authors' lists hold the frames
whose flow passed; without them the same rules are applied again, and accept other frames with another method
of flow. Frame numbers depend on the disc's chapter marks: in another edition the lists name other pictures.
"""

import re

from datasets_prep.settings import Split
from datasets_prep.sources.stereo_tree import StereoTree, tree_layout, tree_pattern

_TRAINING = (
    "battle billy_lynn drive_angry exodus final_destination harold_kumar hellbenders hobbit1 hobbit2 hugo "
    "musketeers nurse pina planet_apes spiderman stepup3d stepup_allin transformers wolf xmen"
)
SPLIT_OF_FILM: dict[str, Split] = {
    **dict.fromkeys(_TRAINING.split(), "train"),
    **dict.fromkeys(("gatsby", "stepup_rev"), "val"),
    **dict.fromkeys(("doctor_who", "streetdance"), "test"),
}
"""The authors' split; names of films as in their lists."""


class Movies(StereoTree):
    """3D Movies, as the authors' scripts or `dpt stereo` leave them; see the module's docstring."""

    name = "movies"
    layout = tree_layout("<film>/chapter<N>") + "\n(dpt stereo movies makes them of videos)"
    pattern = tree_pattern(r"chapter\d+")
    split_of_video = SPLIT_OF_FILM
    list_pattern = re.compile(
        r"(?:.*/)?(?:3dmovies_)?(?:(?P<train>train)|(?P<val>validation)|(?P<test>test))\.txt"
    )

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The frame in `columns`, which lists name without an ending or with the image's."""
        return columns[0].removesuffix(".jpg")
