"""Stereo videos → left views with disparity and its uncertainty, on Ray Data; for 3D Movies and WSVD.

One task per piece of a clip: decode, split the frames into views, optical flow in both directions, disparity,
consistency check, rejection rules, files. With DIS that is one task on one core; with RAFT decoding and
writing stay in tasks, and a pool of actors, one per GPU, computes the flow in between.

The result is the tree of 3DVideos2Stereo (`sources.stereo_tree`), which `dpt prepare` reads. Each finished
piece leaves a record with the reasons of its rejected frames, written after its frames. So pieces are
idempotent: a job that is killed and run again ends with the same bytes, and videos that are added later add
their frames. `stereo.json` and `rejected.parquet` summarise the last run.
"""

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from datasets_prep.errors import BadSample, UserError
from datasets_prep.formats.video import Video
from datasets_prep.progress import Progress
from datasets_prep.settings import StereoDataset, StereoSettings
from datasets_prep.sources.base import Rejection
from datasets_prep.stereo.actors import RaftActor, raft_pool, with_absolute_weights
from datasets_prep.stereo.flow import RaftFlow
from datasets_prep.stereo.lists import ListedPieces, read_movie_lists, read_wsvd_lists
from datasets_prep.stereo.piece import PieceWork
from datasets_prep.stereo.plan import (
    RECORDS,
    BadVideoFolder,
    Piece,
    StereoVideo,
    find_videos,
    pieces_of_clip,
    sampling_rate,
    without_first_and_last,
)
from datasets_prep.stereo.shot_cuts import THUMBNAIL_WIDTH, clips_of_shot, find_cuts
from datasets_prep.storage.folder import Folder, existing_folder
from datasets_prep.storage.retries import CannotWrite, StorageFailed
from datasets_prep.storage.sealed import intact, sealed, unsealed

SETTINGS_NAME = "settings.json"
CUTS = "cuts"
"""Folder in the tree with the shot cuts of each video."""

REPORT_NAME = "stereo.json"
REJECTED_NAME = "rejected.parquet"

_READERS = 16

_REJECTED_SCHEMA = pa.schema(dict.fromkeys(("source_path", "reason"), pa.string()))


class NothingUsable(UserError):
    """No frame of the videos could be used, or the folder holds the results of other settings."""


@dataclass(frozen=True, slots=True)
class StereoReport:
    """Summary of a finished job: `stereo.json`.

    Attributes:
        dataset: movies or wsvd.
        settings: all resolved settings.
        videos: number of videos (films count by chapter).
        missing: names of listed videos that do not exist.
        frames: number of frames that were written.
        rejected: kind of reason → number of frames.
    """

    dataset: str
    settings: dict[str, Any]
    videos: int
    missing: list[str]
    frames: int
    rejected: dict[str, int]


@dataclass(frozen=True, slots=True)
class StereoPlan:
    """The work of a job; made without Ray and without writing anything.

    Attributes:
        dataset: movies or wsvd.
        settings: settings with the dataset's defaults.
        folder: folder of videos.
        videos: all videos in it.
        listed: pieces that the authors' lists name; None to take clips of all shots.
        sky: folder of sky masks, or None.
        masks: name of a frame → size of its sky mask's file.
    """

    dataset: StereoDataset
    settings: StereoSettings
    folder: Folder
    videos: list[StereoVideo]
    listed: ListedPieces | None
    sky: Folder | None
    masks: dict[str, int]


def plan_stereo(
    dataset: str, videos: str, settings: StereoSettings, lists: str | None = None, sky: str | None = None
) -> StereoPlan:
    """Find the videos and read the lists, without decoding a frame.

    Args:
        dataset: movies or wsvd.
        videos: folder of videos, see `stereo.plan`; a path or URI, like all folders.
        settings: settings of the job.
        lists: folder of the authors' lists: frames of films (without it, clips of all shots are taken), or
            clips of WSVD, which needs it.
        sky: folder of masks `<name of the frame>.png`, nonzero where sky is.

    Raises:
        NotFound: if a folder or the file of weights does not exist.
        UserError: if that file holds other weights.
        BadVideoFolder: if there is no such dataset, or videos or lists cannot be used as they are.
        BadClipList: if a list of WSVD is damaged or hostile.
    """
    known = _find_dataset(dataset)
    resolved, folder = settings.of(known), Folder(videos)
    found = find_videos(known, folder, resolved)
    if settings.flow == "raft" and settings.raft_weights is not None:
        RaftFlow(settings.raft_weights, settings.raft_updates, "cpu")  # an actor's error would be a traceback
    sky_folder = existing_folder(sky) if sky else None
    sizes = sky_folder.files().items() if sky_folder else ()
    masks = {path.removesuffix(".png"): size for path, size in sizes}
    return StereoPlan(known, resolved, folder, found, _listed(known, lists, found), sky_folder, masks)


def run_stereo(plan: StereoPlan, out: str) -> Iterator[Progress]:
    """Carry out a plan; Ray must be running.

    Args:
        plan: pieces to compute.
        out: path or URI of the tree.

    Yields:
        The progress in frames after each piece; exhaust the iterator to finish the job, then `read_report`.

    Raises:
        NothingUsable: if `out` was made with other settings, or no frame passed.
        StorageFailed: if pieces could not be read or written; the others are finished, run it again.
        UserError: at once, if none can be written, as on a full disk.
    """
    tree = Folder(out)
    _claim(tree, plan)
    listed = plan.listed if plan.listed is not None else _shots_of(plan, tree)
    for split, names in listed.splits.items():
        tree.update_text(f"lists/{split}.txt", "".join(f"{name}\n" for name in names))
    pieces = {piece.record_name(plan.settings, plan.masks): piece for piece in listed.pieces}
    finished = _read_records(tree, _finished_records(tree, pieces))
    total, rejected = sum(len(piece.numbers) for piece in pieces.values()), 0
    reasons: dict[str, str | None] = {}
    waiting = {name: piece for name, piece in pieces.items() if name not in finished}
    for record in itertools.chain(finished.values(), _run_pieces(plan, waiting, tree)):
        reasons.update(record)
        rejected += sum(reason is not None for reason in record.values())
        yield Progress(len(reasons), total, rejected)
    _close(tree, plan, listed.missing, reasons)


def read_report(out: str) -> StereoReport:
    """The summary of the last finished job in the folder `out`."""
    return StereoReport(**unsealed(Folder(out).read_bytes(REPORT_NAME), f"{out}/{REPORT_NAME}"))


# ---- before the work


def _find_dataset(name: str) -> StereoDataset:
    known: dict[str, StereoDataset] = {dataset: dataset for dataset in get_args(StereoDataset)}
    if name not in known:
        raise BadVideoFolder(f"{name!r} is not a dataset of stereo videos; there are: {', '.join(known)}")
    return known[name]


def _listed(dataset: StereoDataset, lists: str | None, videos: Sequence[StereoVideo]) -> ListedPieces | None:
    if lists is not None:
        read = read_movie_lists if dataset == "movies" else read_wsvd_lists
        return read(existing_folder(lists), videos)
    if dataset == "wsvd":
        raise BadVideoFolder("wsvd: the authors' lists of clips are needed; give their folder as --lists")
    return None


def _claim(tree: Folder, plan: StereoPlan) -> None:
    """Write the settings to the tree; refuse a tree made with others, which would become a mixture."""
    settings = plan.settings.model_dump(mode="json")
    content = json.dumps({"dataset": plan.dataset, **settings}, indent=1) + "\n"
    if tree.exists(SETTINGS_NAME) and tree.read_text(SETTINGS_NAME) != content:
        raise NothingUsable(
            f"{tree.uri} was made with other settings, see its {SETTINGS_NAME}; give another folder as --out"
        )
    tree.remove_partial_files()
    tree.update_text(SETTINGS_NAME, content)


def _finished_records(tree: Folder, pieces: Mapping[str, Piece]) -> list[str]:
    """The records of finished pieces.

    Raises NothingUsable if a piece of that name has another digest: another video, mask or choice of frames.
    """
    wanted = {name.rpartition("-")[0]: name for name in pieces}  # without the digest
    finished = []
    for name in _files_below(tree, RECORDS):
        if wanted.get(name.rpartition("-")[0], name) != name:
            raise NothingUsable(
                f"{tree.uri}/{name} is of another video, list or sky mask of that name; "
                "remove it and the frames that it names, or give another folder as --out"
            )
        if name in pieces:
            finished.append(name)
    return finished


def _files_below(tree: Folder, name: str) -> list[str]:
    """Paths in the tree of all files below one of its folders, which need not exist."""
    return [f"{name}/{path}" for path in (tree / name).files()] if tree.exists(name) else []


# ---- shots


def _shots_of(plan: StereoPlan, tree: Folder) -> ListedPieces:
    """The clips of all shots of films."""
    videos = without_first_and_last(plan.videos)
    cuts = _find_all_cuts(videos, plan, tree)
    pieces: list[Piece] = []
    damaged: list[Rejection] = []
    for video in videos:
        found = cuts[video.folder]
        for start, stop in itertools.pairwise(found["bounds"]):
            for clip in clips_of_shot(start, stop, found["rate"], sampling_rate(video, plan.settings)):
                pieces += pieces_of_clip(video, video.folder, clip)
        if found["problem"] is not None:
            damaged.append(Rejection(video.path, found["problem"]))
    return ListedPieces(pieces, damaged, {})


def _find_all_cuts(
    videos: Sequence[StereoVideo], plan: StereoPlan, tree: Folder
) -> dict[str, dict[str, Any]]:
    """The cuts of every video by its folder; computed once, then read from the tree."""
    names = {video.folder: f"{CUTS}/{video.folder}-{video.size}.json" for video in videos}
    there = set(_files_below(tree, CUTS))
    cuts = {path: intact(tree, name) for path, name in names.items() if name in there}
    missing = [video for video in videos if cuts.get(video.folder) is None]
    rows = [{"video": pickle.dumps(video), "name": names[video.folder]} for video in missing]
    if rows:
        threshold = plan.settings.cut_threshold
        task = partial(_record_cuts, videos=plan.folder.uri, out=tree.uri, threshold=threshold)
        tasks = ray.data.from_items(rows, override_num_blocks=len(rows)).map(task)
        _require_none([row["failure"] for row in _possible(tasks) if row["failure"]], len(rows), "videos")
    return {path: unsealed(tree.read_bytes(name), tree.path_of(name)) for path, name in names.items()}


def _record_cuts(row: dict[str, Any], *, videos: str, out: str, threshold: float) -> dict[str, str]:
    """Find the cuts of a video, as far as it can be decoded; returns `failure`, `mistake` as PieceWork."""
    video: StereoVideo = pickle.loads(row["video"])
    found: dict[str, Any] = {"rate": 0, "bounds": [], "problem": None}

    def thumbnails(opened: Video) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        try:
            yield from opened.thumbnails(video.start, video.stop, THUMBNAIL_WIDTH)
        except BadSample as error:
            found["problem"] = str(error)

    result = {"failure": "", "mistake": ""}
    try:
        try:
            with Video(Folder(videos), video.path) as opened:
                found["rate"] = round(opened.frame_rate)
                found["bounds"] = find_cuts(thumbnails(opened), threshold)
        except BadSample as error:
            found["problem"] = str(error)
        Folder(out).write_text(row["name"], sealed(found))
    except CannotWrite as error:
        result["mistake"] = str(error)
    except OSError as error:
        result["failure"] = f"{video.path}: {error}"
    return result


def _possible(tasks: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """The rows of `tasks`. Raises UserError at the first that only the user can make possible."""
    for row in tasks.iter_rows():
        if row["mistake"]:
            raise UserError(row["mistake"])
        yield row


def _require_none(failures: Sequence[str], count: int, what: str) -> None:
    if failures:
        raise StorageFailed(
            f"{len(failures)} of {count} {what} could not be read or written, the first: {failures[0]} "
            "(run the command again: what is finished is kept)"
        )


# ---- pieces, in Ray tasks


def _read_records(tree: Folder, names: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """The intact records of finished pieces by name, fetched concurrently: there are tens of thousands."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(names, pool.map(partial(intact, tree), names), strict=True)
        return {name: record for name, record in found if record is not None}


def _run_pieces(
    plan: StereoPlan, pieces: Mapping[str, Piece], tree: Folder
) -> Iterator[dict[str, str | None]]:
    """Compute pieces, given by their records' names; yields the records in order of completion."""
    rows = [
        {"name": name, "piece": pickle.dumps(piece), "masked": [frame in plan.masks for frame in piece.names]}
        for name, piece in pieces.items()
    ]
    if not rows:
        return
    work = PieceWork(plan.folder.uri, tree.uri, plan.sky.uri if plan.sky else None, plan.settings)
    dataset: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if plan.settings.flow == "dis":
        dataset = dataset.map(work.whole)
    else:
        pool: Any = {"fn_constructor_args": (with_absolute_weights(plan.settings),), **raft_pool()}
        dataset = dataset.map(work.decode).map_batches(RaftActor, batch_size=1, **pool).map(work.write)
    failures = []
    for row in _possible(dataset):
        if row["failure"]:
            failures.append(row["failure"])
        else:
            yield json.loads(row["record"])
    _require_none(failures, len(rows), "pieces")


# ---- the end


def _close(
    tree: Folder, plan: StereoPlan, missing: Sequence[Rejection], reasons: Mapping[str, str | None]
) -> None:
    """Write the table of rejected frames, then the report."""
    rejected = [(frame, reason) for frame, reason in sorted(reasons.items()) if reason is not None]
    every = [*((entry.path, entry.reason) for entry in missing), *rejected]
    entries = [{"source_path": path, "reason": reason} for path, reason in every]
    frames = len(reasons) - len(rejected)
    # By the rule that a reason starts with, without the measured values.
    counts = Counter(reason.partition(":")[0] for _, reason in rejected)
    with tree.writing(REJECTED_NAME) as path:
        pq.write_table(pa.Table.from_pylist(entries, _REJECTED_SCHEMA), path)
    report = StereoReport(
        dataset=plan.dataset,
        settings=plan.settings.model_dump(mode="json"),
        videos=len(plan.videos),
        missing=[entry.path for entry in missing],
        frames=frames,
        rejected=dict(sorted(counts.items())),
    )
    tree.update_text(REPORT_NAME, sealed(asdict(report)))
    if not frames:
        first = f"; first reason: {entries[0]['source_path']}: {entries[0]['reason']}" if entries else ""
        raise NothingUsable(f"none of the frames could be used{first} (all: {tree.uri}/{REJECTED_NAME})")
