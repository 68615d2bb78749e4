"""The authors' lists of frames, for films and for WSVD, matched with the existing videos."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from datasets_prep.sources.base import Rejection
from datasets_prep.sources.wsvd_lists import MAX_LIST_BYTES, read_clips
from datasets_prep.stereo.plan import BadVideoFolder, Piece, StereoVideo, pieces_of_clip
from datasets_prep.storage.folder import Folder

_LIST_LINE = re.compile(r"(?P<folder>[^/]+/chapter\d+)/out(?P<number>\d{8})(?:\.(?:jpg|png))?")
_WSVD_LIST = re.compile(r"wsvd_(?P<split>train|test)_clip_frame_ids\.pkl")


@dataclass(frozen=True, slots=True)
class ListedPieces:
    """The pieces of existing videos that lists name, `missing` videos, and `splits`: split → its videos.

    `splits` is empty where the lists have none; `pieces` are in the order of the lists.
    """

    pieces: list[Piece]
    missing: list[Rejection]
    splits: dict[str, list[str]]


def read_movie_lists(lists: Folder, videos: Sequence[StereoVideo]) -> ListedPieces:
    """The frames of `videos` that the `.txt` files in `lists` name (`hugo/chapter2/out00000042` per line).

    Frame 1 is the first of a chapter. Raises BadVideoFolder if there is no list, or a line does not name a
    frame.
    """
    numbers: dict[str, set[int]] = {}
    paths = [path for path in lists.files() if path.endswith(".txt")]
    if not paths:
        expected = "expected train.txt, validation.txt, test.txt"
        raise BadVideoFolder(f"no list of frames in {lists.uri}; {expected}")
    for path in paths:
        for count, line in enumerate(lists.read_text(path, most=MAX_LIST_BYTES).splitlines(), 1):
            match = _LIST_LINE.fullmatch(line.strip())
            if match and int(match["number"]) > 0:
                numbers.setdefault(match["folder"], set()).add(int(match["number"]) - 1)
            elif line.strip():
                found = f"expected film/chapter2/out00000042, got {line[:80]!r}"
                raise BadVideoFolder(f"{lists.uri}/{path}, line {count}: {found}")
    by_folder = {video.folder: video for video in videos}
    pieces = [
        piece
        for folder, found in sorted(numbers.items())
        if (video := by_folder.get(folder)) is not None
        for piece in pieces_of_clip(video, folder, (video.start + number for number in found))
    ]
    missing = [
        Rejection(folder, f"no video of this chapter, for which {len(found)} frames are listed")
        for folder, found in sorted(numbers.items())
        if folder not in by_folder
    ]
    return ListedPieces(pieces, missing, {})


def read_wsvd_lists(lists: Folder, videos: Sequence[StereoVideo]) -> ListedPieces:
    """The clips of `videos` in the authors' `wsvd_{train,test}_clip_frame_ids.pkl` in the folder `lists`.

    Raises BadVideoFolder if neither file exists; BadClipList if one is damaged or hostile.
    """
    by_id = {video.folder: video for video in videos}
    pieces: list[Piece] = []
    missing: dict[str, Rejection] = {}
    splits: dict[str, list[str]] = {}
    for path in lists.files():
        if not (match := _WSVD_LIST.fullmatch(posixpath.basename(path))):
            continue
        listed = read_clips(lists.read_bytes(path, most=MAX_LIST_BYTES), f"{lists.uri}/{path}")
        splits[match["split"]] = sorted({video.name for video in listed})
        for entry in listed:
            if entry.name not in by_id:
                reason = f"no video of this id, for which {len(entry.clips)} clips are listed"
                missing[entry.name] = Rejection(entry.name, reason)
                continue
            for count, numbers in enumerate(entry.clips, 1):
                video = by_id[entry.name]
                pieces += pieces_of_clip(video, f"{entry.name}/clip{count:04d}", numbers)
    if not splits:
        expected = "expected wsvd_train_clip_frame_ids.pkl or wsvd_test_…"
        raise BadVideoFolder(f"no list of clips in {lists.uri}; {expected}")
    return ListedPieces(pieces, [missing[name] for name in sorted(missing)], splits)
