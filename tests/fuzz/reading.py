"""What the fuzz suite has read: the readers of the project, as ingest calls them, and what may come out.

Every function runs in a watched process, returns nothing, and raises `AssertionError` where a reader gave
something that is neither a sane sample nor a refusal.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_prep.errors import BadSample
from datasets_prep.formats.video import Video
from datasets_prep.ingest.row import make_row
from datasets_prep.plan.listing import list_samples, without_oversized
from datasets_prep.plan.shards import open_source
from datasets_prep.plan.split_lists import read_lists
from datasets_prep.schema import decode_depth, decode_image, decode_inverse_depth, decode_label
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import Listing
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.sources.wsvd_lists import MAX_LIST_BYTES, read_clips
from datasets_prep.storage.folder import DigestingFolder, Folder

cv2.setNumThreads(1)

SETTINGS = IngestSettings(side=32)

_forbidden: list[str] = []
_trespasses: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _forbidden and isinstance(arguments[0], str) and _forbidden[0] in arguments[0]:
        _trespasses.append(arguments[0])


sys.addaudithook(_watch)


@contextmanager
def confined(outside: str) -> Iterator[None]:
    """Fails if a file below `outside`, beside the dataset's folder, is opened meanwhile."""
    _forbidden[:], _trespasses[:] = [outside], []
    try:
        yield
    finally:
        _forbidden.clear()
    assert not _trespasses, f"opened outside the dataset's folder: {_trespasses}"


def read_sample(root: str, outside: str, source: str, sample: Sample) -> None:
    """Read one sample and make its row, if it may be read at all."""
    with confined(outside):
        folder = DigestingFolder(root)
        opened = open_source(source, root, SETTINGS)
        if not opened.reads_pieces:
            listing = without_oversized(Listing(Samples([sample])), folder.files())
            if listing.rejected:
                raise BadSample(listing.rejected[0].reason)
        _check_row(make_row(opened, folder, sample, sample.split or "train", SETTINGS))


def read_list(root: str, outside: str, source: str, path: str) -> None:
    """List a dataset, with a list of its own given by path."""
    with confined(outside):
        _list(source, Folder(root), {"test": f"{root}/{path}"})


def list_folder(root: str, outside: str, source: str) -> None:
    """List a dataset in whose folder lists or a description lie."""
    with confined(outside):
        _list(source, Folder(root), {})


def _list(source: str, folder: Folder, lists: dict[str, str]) -> None:
    opened = open_source(source, folder.uri, SETTINGS)
    listing = list_samples(opened, folder, read_lists(lists))
    files = set(folder.files())
    for sample in listing.samples:
        assert set(sample.files.values()) <= files, f"{sample} names files that are not there"
        assert sample.split in (None, "train", "val", "test")
    assert all(rejection.reason for rejection in listing.rejected)
    if not listing.samples:
        raise BadSample("no sample is left")


def read_list_of_clips(root: str, outside: str, path: str) -> None:
    """Read the pickled list of a dataset's videos and frames."""
    with confined(outside):
        for video in read_clips(Folder(root).read_bytes(path, most=MAX_LIST_BYTES), path):
            assert isinstance(video.name, str)
            assert "/" not in video.name
            assert all(type(number) is int for clip in video.clips for number in clip)


def read_video(root: str, outside: str, path: str) -> None:
    """Read a video's frames as the search for cuts does, then some of them at full size."""
    with confined(outside), Video(Folder(root), path) as video:
        for _ in video.thumbnails(0, None, 32):
            pass
        for frame in video.frames([0, 3, 30]):
            assert (frame.dtype, frame.shape[2]) == (np.uint8, 3)


def read_shard(root: str, outside: str, path: str) -> None:
    """Read all rows of a shard as training does; damage may also end in one of Arrow's own errors."""
    try:
        with confined(outside), open(f"{root}/{path}", "rb") as file:
            rows = pq.ParquetFile(file, page_checksum_verification=True).read().to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadSample(f"{type(error).__name__}: {error}".replace("\n", " ")[:900]) from error
    for row in rows:
        _decode_row(row)


def _decode_row(row: dict[str, Any]) -> None:
    try:
        image = decode_image(row["image"])
        shape = row["height"], row["width"]
        values = decode_inverse_depth(row["inverse_depth"], *shape)
    except (ValueError, KeyError, TypeError) as error:
        raise BadSample(f"{type(error).__name__}: {error}") from error
    assert image.ndim == 3
    assert values.shape == shape


def _check_row(row: dict[str, Any]) -> None:
    shape = (row["height"], row["width"])
    assert decode_image(row["image"]).shape == (*shape, 3)
    if "inverse_depth" in row:
        values = decode_inverse_depth(row["inverse_depth"], *shape).astype(np.float32)
        assert 0 <= np.nanmin(values) <= np.nanmax(values) <= 1
    elif "depth" in row:
        values = decode_depth(row["depth"], *shape)
        assert 0 < np.nanmin(values) <= np.nanmax(values) < np.inf
    elif "label" in row:
        assert decode_label(row["label"]).shape == shape
    else:
        points = row["point_pair"]
        assert max(points["y_a"], points["y_b"]) < shape[0]
        assert max(points["x_a"], points["x_b"]) < shape[1]
        assert min(points.values()) >= 0
    scale = row.get("scale")
    assert scale is None or (np.isfinite(scale) and scale > 0)
