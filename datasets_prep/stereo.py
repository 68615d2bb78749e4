"""Stereo videos → left views with disparity and its uncertainty, on Ray Data; for 3D Movies and WSVD.

One task a piece of a clip: decode, split the frames into views, optical flow both ways, disparity, check,
rules of rejection, files. With DIS that is one task on one core; with RAFT decoding and writing stay in
tasks, and a pool of actors, one a GPU, computes the flow between them.

The result is the tree of 3DVideos2Stereo (`sources.stereo_tree`), which `dpt prepare` reads. Each finished
piece leaves a record with the reasons of the frames that were left out, written after its frames. So a piece
is done once: killing the job and running it again ends with the same bytes, and videos that are added later
add their frames. `stereo.json` and `rejected.parquet` sum up what the last run found.
"""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from datasets_prep.errors import NotFound, UserError
from datasets_prep.shot_cuts import THUMBNAIL_WIDTH, clips_of_shot, find_cuts
from datasets_prep.sources.source import BadSample, Rejection
from datasets_prep.stereo_piece import PieceWork, RaftActor
from datasets_prep.stereo_plan import (
    RECORDS,
    BadVideoFolder,
    ListedPieces,
    Piece,
    StereoDataset,
    StereoSettings,
    StereoVideo,
    find_videos,
    pieces_of_clip,
    read_movie_lists,
    read_wsvd_lists,
    sampling_rate,
    without_first_and_last,
)
from datasets_prep.storage import Folder
from datasets_prep.videos import Video

SETTINGS_NAME = "settings.json"
CUTS = "cuts"
"""Folder in the tree that has the shot cuts of each video."""

REPORT_NAME = "stereo.json"
REJECTED_NAME = "rejected.parquet"

_READERS = 16

_REJECTED_SCHEMA = pa.schema([("source_path", pa.string()), ("reason", pa.string())])


class NothingUsable(UserError):
    """Not one frame of the videos could be used, or the folder holds the work of other settings."""


@dataclass(frozen=True, slots=True)
class StereoReport:
    """What a job has come to: `stereo.json`.

    Attributes:
        dataset: movies or wsvd.
        settings: all of them, resolved.
        videos: how many were found (films count by chapter).
        missing: names of listed videos that are not there.
        frames: how many were written.
        rejected: kind of reason → frames that were left out for it.
    """

    dataset: str
    settings: dict[str, Any]
    videos: int
    missing: list[str]
    frames: int
    rejected: dict[str, int]


@dataclass(frozen=True, slots=True)
class StereoProgress:
    """How far a job is, in frames; reported after every finished piece."""

    frames: int
    done: int
    rejected: int


def run_stereo(
    dataset: StereoDataset,
    videos: str,
    out: str,
    settings: StereoSettings,
    lists: str | None = None,
    sky: str | None = None,
) -> Iterator[StereoProgress]:
    """Compute the disparity of a folder of stereo videos; Ray must be running.

    Args:
        videos: the folder of videos, see `stereo_plan`; a path or a URI, as all folders.
        out: folder of the tree.
        lists: folder of the authors' lists: frames to take of films (without it, clips of all shots), or
            clips of WSVD, which need it.
        sky: folder of masks `<name of the frame>.png`, not 0 where sky is.

    Yields:
        the progress after each piece; exhaust the iterator to finish the job, then `read_report`.

    Raises:
        NotFound: if a folder is not there.
        BadVideoFolder: if videos or lists cannot be used as they are.
        NothingUsable: if `out` was made with other settings, or no frame passed.
    """
    resolved, folder, tree = settings.of(dataset), Folder(videos), Folder(out)
    found = find_videos(dataset, folder, resolved)
    listed = _listed(dataset, lists, found)
    masks = _masks(sky)
    _claim(tree, dataset, resolved)
    if listed is None:
        used = without_first_and_last(found)
        cuts = _find_all_cuts(used, folder, tree, resolved)
        listed = ListedPieces(_pieces_of_shots(used, cuts, resolved), _undecodable(used, cuts), {})
    for split, names in listed.splits.items():
        _write_once(tree, f"lists/{split}.txt", "".join(f"{name}\n" for name in names))
    pieces = {piece.record_name(resolved, masks): piece for piece in listed.pieces}
    finished = _refuse_other_work(tree, pieces)
    total, rejected = sum(len(piece.numbers) for piece in pieces.values()), 0
    reasons: dict[str, str | None] = {}
    for record in itertools.chain(
        _read_records(tree, finished),
        _run_pieces(
            {name: piece for name, piece in pieces.items() if name not in finished},
            PieceWork(folder.uri, tree.uri, sky, resolved),
            masks,
        ),
    ):
        reasons.update(record)
        rejected += sum(reason is not None for reason in record.values())
        yield StereoProgress(total, len(reasons), rejected)
    _close(tree, dataset, resolved, len(found), listed.missing, reasons)


def read_report(out: str) -> StereoReport:
    """What the last finished job in a folder has come to."""
    return StereoReport(**json.loads(Folder(out).read_text(REPORT_NAME)))


def find_stereo_dataset(name: str) -> StereoDataset:
    """The dataset of that name whose ground truth is computed.

    Raises:
        BadVideoFolder: naming those that there are.
    """
    known: tuple[StereoDataset, ...] = get_args(StereoDataset)
    for dataset in known:
        if dataset == name:
            return dataset
    raise BadVideoFolder(f"{name!r} is no dataset of stereo videos; there are: {', '.join(known)}")


# ---- before the work


def _listed(dataset: StereoDataset, lists: str | None, videos: Sequence[StereoVideo]) -> ListedPieces | None:
    if lists is None:
        if dataset == "wsvd":
            raise BadVideoFolder("wsvd: the authors' lists of clips are needed; give their folder as --lists")
        return None
    folder = Folder(lists)
    if not folder.exists():
        raise NotFound(f"no such folder: {lists}")
    return read_movie_lists(folder, videos) if dataset == "movies" else read_wsvd_lists(folder, videos)


def _masks(sky: str | None) -> dict[str, int]:
    """Name of a frame → size of its sky mask's file."""
    if sky is None:
        return {}
    folder = Folder(sky)
    if not folder.exists():
        raise NotFound(f"no such folder: {sky}")
    return {path.removesuffix(".png"): size for path, size in folder.files().items() if path.endswith(".png")}


def _claim(tree: Folder, dataset: StereoDataset, settings: StereoSettings) -> None:
    """Note the settings in the tree; refuse one that was made with others: it would become a mixture."""
    content = json.dumps({"dataset": dataset, **settings.model_dump(mode="json")}, indent=1) + "\n"
    if tree.exists(SETTINGS_NAME) and tree.read_text(SETTINGS_NAME) != content:
        raise NothingUsable(
            f"{tree.uri} was made with other settings, see its {SETTINGS_NAME}; give another folder as --out"
        )
    tree.remove_partial_files()
    _write_once(tree, SETTINGS_NAME, content)


def _write_once(tree: Folder, name: str, content: str) -> None:
    if not tree.exists(name) or tree.read_text(name) != content:
        tree.write_text(name, content)


def _refuse_other_work(tree: Folder, pieces: Mapping[str, Piece]) -> list[str]:
    """The records of pieces that are finished.

    Raises:
        NothingUsable: if there are frames of another video, other masks or otherwise cut clips of a name.
    """
    wanted = {_without_digest(name): name for name in pieces}
    finished = []
    for name in _files_below(tree, RECORDS):
        if wanted.get(_without_digest(name), name) != name:
            raise NothingUsable(
                f"{tree.uri}/{name} is of another video, list or sky mask of that name; "
                "give another folder as --out"
            )
        if name in pieces:
            finished.append(name)
    return finished


def _files_below(tree: Folder, name: str) -> list[str]:
    """Paths in the tree of all files below one of its folders, which may not be there yet."""
    return [f"{name}/{path}" for path in (tree / name).files()] if tree.exists(name) else []


def _without_digest(record_name: str) -> str:
    return record_name.rpartition("-")[0]


# ---- shots


def _find_all_cuts(
    videos: Sequence[StereoVideo], folder: Folder, tree: Folder, settings: StereoSettings
) -> dict[str, dict[str, Any]]:
    """Record of the cuts of every video by its folder; found once, then read from the tree."""
    names = {video.folder: f"{CUTS}/{video.folder}-{video.size}.json" for video in videos}
    there = _files_below(tree, CUTS)
    rows = [
        {"video": pickle.dumps(video), "name": names[video.folder]}
        for video in videos
        if names[video.folder] not in there
    ]
    if rows:
        task = partial(_record_cuts, videos=folder.uri, out=tree.uri, threshold=settings.cut_threshold)
        for _ in ray.data.from_items(rows, override_num_blocks=len(rows)).map(task).iter_rows():
            pass
    return {video.folder: json.loads(tree.read_text(names[video.folder])) for video in videos}


def _record_cuts(row: dict[str, Any], *, videos: str, out: str, threshold: float) -> dict[str, str]:
    video: StereoVideo = pickle.loads(row["video"])
    bounds: list[int] = []
    rate, problem = 0, None
    try:
        with Video(Folder(videos), video.path) as opened:
            rate = round(opened.frame_rate)
            bounds = find_cuts(opened.thumbnails(video.start, video.stop, THUMBNAIL_WIDTH), threshold)
    except BadSample as error:
        problem = str(error)
    content = {"rate": rate, "bounds": bounds, "problem": problem}
    Folder(out).write_text(row["name"], json.dumps(content) + "\n")
    return {"name": row["name"]}


def _pieces_of_shots(
    videos: Sequence[StereoVideo], cuts: Mapping[str, dict[str, Any]], settings: StereoSettings
) -> list[Piece]:
    pieces: list[Piece] = []
    for video in videos:
        bounds, rate = cuts[video.folder]["bounds"], cuts[video.folder]["rate"]
        for start, stop in itertools.pairwise(bounds):
            for clip in clips_of_shot(start, stop, rate, sampling_rate(video, settings)):
                pieces += pieces_of_clip(video, video.folder, clip)
    return pieces


def _undecodable(videos: Sequence[StereoVideo], cuts: Mapping[str, dict[str, Any]]) -> list[Rejection]:
    return [
        Rejection(video.path, problem)
        for video in videos
        if (problem := cuts[video.folder]["problem"]) is not None
    ]


# ---- pieces, in Ray tasks


def _read_records(tree: Folder, names: Sequence[str]) -> Iterator[dict[str, str | None]]:
    """The records of finished pieces, fetched many at a time: there are tens of thousands."""
    with ThreadPoolExecutor(_READERS) as pool:
        for text in pool.map(tree.read_text, names):
            yield json.loads(text)


def _run_pieces(
    pieces: Mapping[str, Piece], work: PieceWork, masks: Mapping[str, int]
) -> Iterator[dict[str, str | None]]:
    """Work on pieces, by their records' names; yields the records as they are finished."""
    rows = [
        {"name": name, "piece": pickle.dumps(piece), "masked": [frame in masks for frame in piece.names]}
        for name, piece in pieces.items()
    ]
    if not rows:
        return
    dataset: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if work.settings.flow == "dis":
        dataset = dataset.map(work.whole)
    else:
        dataset = dataset.map(work.decode).map_batches(
            RaftActor, fn_constructor_args=(work.settings,), batch_size=1, **_raft_pool()
        )
        dataset = dataset.map(work.write)
    for row in dataset.iter_rows():
        yield json.loads(row["record"])


def _raft_pool() -> dict[str, Any]:
    """One actor a GPU, or one on the CPU. They take no CPU slot: decoding feeds them and must not starve."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return {
        "compute": ray.data.ActorPoolStrategy(size=max(1, gpus)),
        "num_gpus": min(1, gpus),
        "num_cpus": 0,
    }


# ---- the end


def _close(
    tree: Folder,
    dataset: StereoDataset,
    settings: StereoSettings,
    videos: int,
    missing: Sequence[Rejection],
    reasons: Mapping[str, str | None],
) -> None:
    """Write the table of what was left out, then the report."""
    frames, entries = 0, [{"source_path": entry.path, "reason": entry.reason} for entry in missing]
    counts: Counter[str] = Counter()
    for frame, reason in sorted(reasons.items()):
        if reason is None:
            frames += 1
        else:
            counts[_kind(reason)] += 1
            entries.append({"source_path": frame, "reason": reason})
    with tree.writing(REJECTED_NAME) as path:
        pq.write_table(pa.Table.from_pylist(entries, _REJECTED_SCHEMA), path)
    report = StereoReport(
        dataset=dataset,
        settings=settings.model_dump(mode="json"),
        videos=videos,
        missing=[entry.path for entry in missing],
        frames=frames,
        rejected=dict(sorted(counts.items())),
    )
    _write_once(tree, REPORT_NAME, json.dumps(asdict(report), indent=1) + "\n")
    if not frames:
        first = f"; first reason: {entries[0]['source_path']}: {entries[0]['reason']}" if entries else ""
        raise NothingUsable(f"none of the frames could be used{first} (all: {tree.uri}/{REJECTED_NAME})")


def _kind(reason: str) -> str:
    """What a reason starts with: the rule, without what was measured."""
    return reason.partition(":")[0]
