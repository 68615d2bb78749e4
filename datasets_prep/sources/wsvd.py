"""WSVD: 553 stereo videos on YouTube, non-rigid scenes of all kinds; the user needs the videos.

Where: https://sites.google.com/view/wsvd/home, lists of videos and clips (C. Wang et al., "Web Stereo Video
Supervision for Depth Prediction from Dynamic Scenes", 3DV 2019). Licence: the videos belong to their
uploaders and are not redistributable; the authors publish ids only.

There is no ground truth: `dpt stereo wsvd --videos FOLDER --lists FOLDER --out RAW` computes it, optical flow
between the two views, and writes the tree below. `--lists` holds `wsvd_train_clip_frame_ids.pkl` and
`wsvd_test_clip_frame_ids.pkl`: for each video clips of 30 frame numbers, about 1.5 million frames in all.
They are pickles, and read without executing them.

Layout: `image_left/<YouTube id>/clip<4 digits>/out<8 digits>.jpg`, `disparity/….png` and `uncertainty/….png`
of the same size, in the formats of 3D Movies. Clips count from 1 in their list, frames from 1 in the video.

Values: disparity in pixels of its own map, 16-bit PNG with the texts `offset` and `scale` (disparity = offset
+ scale · stored). The cameras are unknown, so it means inverse depth up to scale and shift, and may
be negative.

Invalid pixels: where forward and backward flow disagree by 2 px or more. Sky is not marked.

Splits: official, by video, as the two lists say; `dpt stereo` leaves them in the tree as `lists/train.txt`
and `lists/test.txt`, one id per line. A video is a group.

Known defects: more than a quarter of the videos are gone (405 of 553 were online in May 2020); those that are
missing are counted and left out. Most pack the views side by side at half width, some at full width or above
each other, and some have the right eye first, which turns depth inside out: `videos.yaml` beside the videos
sets `packing` and `swapped` for each. In some lists ids carry the downloader's format (`.f136`); it is
ignored. Subtitles, frames and logos lie in front of the scene.
"""

import re

from datasets_prep.sources.samples import Sample
from datasets_prep.sources.stereo_tree import StereoTree, tree_layout, tree_pattern
from datasets_prep.sources.wsvd_lists import video_id


class WSVD(StereoTree):
    """WSVD, as `dpt stereo` leaves it; see the module's docstring."""

    name = "wsvd"
    layout = tree_layout("<YouTube id>/clip<4 digits>")
    layout += "\nlists/{train,test}.txt\n(dpt stereo wsvd makes them of videos)"
    pattern = tree_pattern(r"clip\d{4,}")
    list_pattern = re.compile(r"lists/(?:.*/)?(?:(?P<train>train)|(?P<test>test))\.txt")

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The id of the video in `columns`."""
        return video_id(columns[0])

    def list_key(self, sample: Sample) -> str:
        """The video of `sample`, which is what lists name."""
        return sample.group
