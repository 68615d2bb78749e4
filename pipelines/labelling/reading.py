"""The content of pictures: encoded images, or decoded frames of a video."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from threading import Lock
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.video import Video
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder
from pipelines.labelling.pictures import VIDEOS, image_column

Content = bytes | NDArray[np.uint8]
"""The bytes of an image file, or (H, W, 3) RGB."""

Fetch = Callable[[], Content]
"""Reads a picture, in any thread. Raises BadSample if it cannot be used; OSError when storage fails."""

_MISSING = (FileNotFoundError, IsADirectoryError, PermissionError)
_ARCHIVE = Lock()
"""The files of a tar share one position."""

_folder = lru_cache(maxsize=64)(Folder)


def fetching(samples: Sequence[Sample], column: str | None) -> Iterator[tuple[Sample, Fetch]]:
    """Each picture of `samples` with a function that reads it, in an order in which a file is read once.

    `column` is that of Parquet files, see `pictures.image_column`.
    """
    inside = sorted(
        (sample for sample in samples if sample.annotation),
        key=lambda sample: (sample.group, sample.files["image"], int(sample.annotation)),
    )
    for (uri, path), members in itertools.groupby(inside, lambda s: (s.group, s.files["image"])):
        yield from _in_one_file(_folder(uri), path, list(members), column)
    for sample in samples:
        if not sample.annotation:
            yield sample, partial(_read, _folder(sample.group), sample.files["image"])


def _read(root: Folder, path: str) -> bytes:
    try:
        with _ARCHIVE if root.in_archive else nullcontext():
            return root.read_bytes(path)
    except _MISSING as error:
        raise BadSample(f"{type(error).__name__}: {error}") from error


def _in_one_file(
    root: Folder, path: str, members: Sequence[Sample], column: str | None
) -> Iterator[tuple[Sample, Fetch]]:
    """The pictures in the file, in its order; those that are not in it last."""
    waiting = {int(sample.annotation): sample for sample in members}
    reason = "it is not in the file any more"
    is_video = posixpath.splitext(path)[1].lower() in VIDEOS
    try:
        contents = _frames(root, path, list(waiting)) if is_video else _rows(root, path, set(waiting), column)
        for number, content in contents:
            yield waiting.pop(number), partial(_given, content)
    except BadSample as error:
        reason = str(error)
    except _MISSING as error:
        reason = f"{type(error).__name__}: {error}"
    for sample in waiting.values():
        yield sample, partial(_refuse, reason)


def _frames(root: Folder, path: str, numbers: Sequence[int]) -> Iterator[tuple[int, Content]]:
    with Video(root, path) as video:
        yield from video.frames_from(numbers)


def _rows(
    root: Folder, path: str, numbers: set[int], column: str | None
) -> Iterator[tuple[int, Content | None]]:
    try:
        with root.open(path) as file:
            parquet = pq.ParquetFile(file)
            name, start = image_column(parquet.schema_arrow, column), 0
            for group in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(group).num_rows
                if wanted := sorted(numbers.intersection(range(start, stop))):
                    values = parquet.read_row_group(group, [name]).column(name)
                    for number in wanted:
                        value = values[number - start].as_py()
                        yield number, value["bytes"] if isinstance(value, dict) else value
                start = stop
    except pa.ArrowInvalid as error:
        raise BadSample(f"Parquet file damaged: {error}") from error


def _given(content: Content | None) -> Content:
    if content is None:
        raise BadSample("the row has no image")
    return content


def _refuse(reason: str) -> NoReturn:
    raise BadSample(reason)
