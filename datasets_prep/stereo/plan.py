"""The plan of a stereo job: frames of videos, cut into pieces, chosen before any frame is decoded.

Videos lie in a folder of the user:

    movies   <film>.mkv, with or without chapter marks, or <film>/chapter<N>.mkv for each chapter
    wsvd     <YouTube id>.mp4, also with the downloader's suffix: <id>.f136.mp4

The names of films are those of the authors' lists (`hugo`, `exodus`, …). A `videos.yaml` beside the videos
overrides the dataset's packing:

    hugo.mkv: {packing: over_under}
    pina/chapter3.mkv: {packing: half_side_by_side, swapped: true}
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter

from pydantic import BaseModel, ConfigDict, ValidationError

from datasets_prep.errors import BadSample, UserError
from datasets_prep.formats.video import SUFFIXES, Video
from datasets_prep.settings import Packing, StereoDataset, StereoSettings, digest_of
from datasets_prep.sources.movies import SPLIT_OF_FILM
from datasets_prep.sources.wsvd_lists import video_id
from datasets_prep.storage.folder import Folder, existing_folder
from datasets_prep.strict_yaml import InvalidYaml, load_yaml

OVERRIDES_NAME = "videos.yaml"

FRAMES_A_PIECE = 10
"""Largest number of frames per task: two Full HD views of each are 120 MB."""

_MAX_GAP = 48  # largest gap between the frames of a piece: beyond it, seeking is cheaper than decoding on
_FILM_FILE = re.compile(r"(?P<film>[^/]+)(?:/chapter(?P<chapter>\d+))?\.(?:" + "|".join(SUFFIXES) + ")")


class BadVideoFolder(UserError):
    """A folder of videos, its `videos.yaml` or a list of frames cannot be used; the message says why."""


class _VideoOverride(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    packing: Packing | None = None
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class StereoVideo:
    """A video, or one chapter of it.

    Attributes:
        folder: folder of its frames in the tree: `hugo/chapter2`, or the YouTube id.
        path: path in the folder of videos.
        size: size of the file in bytes.
        packing: arrangement of the views in a frame.
        swapped: whether the right eye's view comes first.
        is_film: whether it belongs to the Movies dataset, whose 1080p views are cut to 2.35:1.
        start, stop: half-open range of frame numbers of the chapter; `stop` None for the end of the video.
    """

    folder: str
    path: str
    size: int
    packing: Packing
    swapped: bool
    is_film: bool
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """The frames of one task: a clip, or part of a long one.

    Attributes:
        video: their video.
        numbers: frame numbers in the video, ascending.
        names: names of the frames in the tree, without ending: `hugo/chapter2/out00000042`.
    """

    video: StereoVideo
    numbers: tuple[int, ...]
    names: tuple[str, ...]

    def record_name(self, settings: StereoSettings, sky: Mapping[str, int]) -> str:
        """Path of the piece's record; it contains a digest of everything that decides the result.

        This includes the `settings` of the job and the sizes of sky masks by names of frames, `sky`.
        """
        masks = [sky.get(name) for name in self.names]
        video = [self.video.path, self.video.size, self.video.packing, self.video.swapped]
        digest = digest_of([settings.digest, video, self.numbers, self.names, masks])
        return f"{RECORDS}/{self.names[0]}-{digest}.json"


RECORDS = "pieces"
"""Folder in the tree with a record for each finished piece."""


def find_videos(dataset: StereoDataset, folder: Folder, settings: StereoSettings) -> list[StereoVideo]:
    """All videos in a folder, films by chapter, in a reproducible order.

    Args:
        dataset: decides how videos are named.
        folder: folder of videos.
        settings: settings with the dataset's defaults, see `StereoSettings.of`.

    Raises:
        NotFound: if the folder does not exist.
        BadVideoFolder: if it holds no video, two of one name, or a `videos.yaml` that is not valid.
    """
    existing_folder(folder.uri)
    overrides = _read_overrides(folder)
    found: dict[str, StereoVideo] = {}
    visible, _ = folder.files().visible()
    for path, size in visible.items():
        override = overrides.get(path, _VideoOverride())
        name = _folder_of(dataset, path)
        if name is None:
            continue
        assert settings.packing is not None
        film = dataset == "movies"
        packing = override.packing or settings.packing
        video = StereoVideo(name, path, size, packing, override.swapped, film)
        for part in _chapters(folder, video) if film and "/" not in path else [video]:
            if part.folder in found:
                raise BadVideoFolder(f"{folder.uri}: {path} and {found[part.folder].path} have one name")
            found[part.folder] = part
    if not found:
        kind = "<film>.mkv or <film>/chapter<N>.mkv" if dataset == "movies" else "<YouTube id>.mp4"
        raise BadVideoFolder(f"no video in {folder.uri}; expected {kind} (or {', '.join(SUFFIXES)})")
    return [found[name] for name in sorted(found)]


def _folder_of(dataset: StereoDataset, path: str) -> str | None:
    stem, dot, suffix = path.rpartition(".")
    if dataset == "wsvd":
        return video_id(stem) if dot and suffix in SUFFIXES else None
    match = _FILM_FILE.fullmatch(path)
    if not match:
        return None
    return f"{match['film']}/chapter{match['chapter']}" if match["chapter"] else match["film"]


def _chapters(folder: Folder, film: StereoVideo) -> list[StereoVideo]:
    """A film by its chapter marks; one chapter if there are none or it cannot be opened (yet)."""
    marks: Sequence[tuple[int, int | None]] = ()
    with suppress(BadSample), Video(folder, film.path) as video:
        marks = video.chapters()
    numbered = enumerate(marks or [(0, None)], 1)
    return [replace(film, folder=f"{film.folder}/chapter{n}", start=a, stop=b) for n, (a, b) in numbered]


def _read_overrides(folder: Folder) -> dict[str, _VideoOverride]:
    if not folder.exists(OVERRIDES_NAME):
        return {}
    where = f"{folder.uri}/{OVERRIDES_NAME}"
    try:
        content = load_yaml(folder.read_bytes(OVERRIDES_NAME)) or {}
    except InvalidYaml as error:
        raise BadVideoFolder(f"{where}: {error}") from error
    if not isinstance(content, dict):
        raise BadVideoFolder(f"{where}: expected a file name in each line, got {type(content).__name__}")
    overrides = {}
    for path, fields in content.items():
        if path not in folder.files():
            raise BadVideoFolder(f"{where}: there is no video {path!r}")
        try:
            overrides[path] = _VideoOverride.model_validate(fields)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise BadVideoFolder(f"{where}: {path}: {key}: {problem['msg']}") from error
    return overrides


# ---- pieces


def without_first_and_last(videos: Sequence[StereoVideo]) -> list[StereoVideo]:
    """The `videos` without titles and credits, as the authors did: a film's first and last marked chapter."""
    marked: dict[str, list[StereoVideo]] = {}
    start = attrgetter("start")
    for video in videos:
        if video.stop is not None:
            marked.setdefault(video.path, []).append(video)
    left_out = {
        video.folder
        for chapters in marked.values()
        if len(chapters) >= 3
        for video in (min(chapters, key=start), max(chapters, key=start))
    }
    return [video for video in videos if video.folder not in left_out]


def sampling_rate(video: StereoVideo, settings: StereoSettings) -> int:
    """Frames per second in the clips of `video`, a film's chapter, by `settings`."""
    held_out = SPLIT_OF_FILM.get(video.folder.split("/")[0]) in ("val", "test")
    return settings.validation_rate if held_out else settings.train_rate


def pieces_of_clip(video: StereoVideo, folder: str, numbers: Iterable[int]) -> Iterator[Piece]:
    """Cut a clip into pieces of at most `FRAMES_A_PIECE` frames.

    It has the frames `numbers` of `video`, in any order, which lie in `folder` in the tree.
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if not parts or len(parts[-1]) == FRAMES_A_PIECE or number - parts[-1][-1] > _MAX_GAP:
            parts.append([])
        parts[-1].append(number)
    for part in parts:
        names = tuple(f"{folder}/out{number - video.start + 1:08d}" for number in part)
        yield Piece(video, tuple(part), names)
