"""The pictures of `dpt label`, found and not read: image files, frames of videos, rows of Parquet files.

They come from folders, files, patterns (`photos/**/*.jpg`) and zip or tar archives, on local disks and object
stores. A picture's id is its file's path below the deepest folder that all arguments share, with `#` and the
number of the frame or row, so the ids of equal folders are equal on any machine.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from datasets_prep.errors import BadSample, NotFound
from datasets_prep.formats import video
from datasets_prep.plan.listing import MAX_FILE_BYTES
from datasets_prep.sources.base import Rejection
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.storage.folder import Folder, existing_folder
from pipelines.config import ConfigError, LabelConfig
from pipelines.prediction.inputs import IMAGE_SUFFIXES

VIDEOS = frozenset(f".{ending}" for ending in video.SUFFIXES)
TABLES = frozenset({".parquet", ".pq"})


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures that were found.

    Attributes:
        samples: the pictures by id. `group` is the address of the folder or archive that the file
            `files["image"]` is in, `annotation` the number of the frame or row in it ("" of an image file).
        rejected: files that are left out.
        digest: of all ids and sizes of files.
    """

    samples: Samples
    rejected: list[Rejection]
    digest: str


def find_pictures(arguments: Sequence[str], out: str, settings: LabelConfig) -> Pictures:
    """The pictures of `arguments`: files, folders, archives and patterns, each a path or URI.

    Files below `out`, the folder of the results, are not among them. `settings` says which frames of a video
    and which column of a Parquet file are pictures.

    Raises:
        NotFound: if an argument names nothing.
        UserError: if it is another file, or a damaged archive.
        ConfigError: if there is no picture at all.
    """
    chosen: dict[str, dict[str, int]] = {}
    hidden: list[tuple[str, str]] = []
    for argument in arguments:
        root, files, left = _chosen(argument)
        chosen.setdefault(root.uri, {}).update(files)
        hidden += [(root.uri, path) for path in left]
    names = _names(chosen)
    samples, state, seen = Samples(), hashlib.sha256(), set[str]()
    reason = "hidden, special, or a file of the operating system"
    rejected = [Rejection(names[uri] + path, reason) for uri, path in hidden]
    results = _address(Folder(out)) + "/"
    for uri in sorted(chosen):
        root = Folder(uri)
        for path, size in sorted(chosen[uri].items()):
            name = names[uri] + path
            # One file may be in two of the arguments.
            if name in seen or f"{_address(root)}/{path}".startswith(results):
                continue
            seen.add(name)
            try:
                for sample in _samples(name, root, path, size, settings):
                    samples.append(sample)
                state.update(repr((name, size)).encode())
            except BadSample as error:
                rejected.append(Rejection(name, str(error)))
    if not samples:
        first = f"; first file left out: {rejected[0].path}: {rejected[0].reason}" if rejected else ""
        raise ConfigError(f"no picture in {', '.join(arguments[:3])}{first}")
    return Pictures(samples, rejected, state.hexdigest())


def _chosen(argument: str) -> tuple[Folder, Mapping[str, int], list[str]]:
    """The root of an argument, its files with their sizes, and those that are hidden."""
    if glob.has_magic(argument) and not os.path.exists(argument):
        parts = argument.split("/")
        fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
        root = Folder("/".join(parts[:fixed]) or ("/" if fixed else "."))
        pattern = re.compile(glob_translate("/".join(parts[fixed:])))
        visible, hidden = root.files().visible()
        files = {path: size for path, size in visible.items() if pattern.match(path)}
        if not files:
            raise NotFound(f"no file matches {argument}")
        return root, files, [path for path in hidden if pattern.match(path)]
    if posixpath.splitext(argument)[1].lower() in IMAGE_SUFFIXES | VIDEOS | TABLES:
        above, _, name = argument.rpartition("/")
        root = Folder(above or ("/" if argument.startswith("/") else "."))
        if root.has_file(name):
            return root, {name: int(root.fs.size(root.path_of(name)))}, []
    root = existing_folder(argument)
    visible, hidden = root.files().visible()
    return root, visible, hidden


def _address(root: Folder) -> str:
    """The address of a folder; of one in an archive its path below that of the archive."""
    if not root.in_archive:
        return root.uri.rstrip("/")
    inside, _, archive = root.uri.partition("::")
    return f"{archive}/{inside.partition('://')[2]}".rstrip("/")


def _names(roots: Mapping[str, Any]) -> dict[str, str]:
    """For each root what the names of its files begin with: its path below the folder that all share."""
    parts = {uri: _address(Folder(uri)).split("/") for uri in roots}
    same = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*parts.values(), strict=False))
    shared = len(list(same))
    return {uri: "".join(f"{part}/" for part in path[shared:]) for uri, path in parts.items()}


def _samples(name: str, root: Folder, path: str, size: int, settings: LabelConfig) -> Iterator[Sample]:
    """The pictures in a file. Raises BadSample if there are none."""
    suffix = posixpath.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        if size > MAX_FILE_BYTES:
            raise BadSample(f"file of {size} bytes, at most {MAX_FILE_BYTES} are read")
        yield Sample(name, {"image": path}, root.uri)
        return
    if suffix in VIDEOS:
        numbers = _frames(root, path, settings.frame_step)
    elif suffix in TABLES:
        numbers = _rows(root, path, settings.image_column)
    else:
        raise BadSample("not read: neither image, video nor Parquet file")
    for number in numbers:
        yield Sample(f"{name}#{number:06}", {"image": path}, root.uri, annotation=str(number))


def _frames(root: Folder, path: str, step: int) -> range:
    with video.Video(root, path) as opened:
        if not opened.count:
            raise BadSample("the video tells neither its number of frames nor its duration")
        return range(0, opened.count, step)


def _rows(root: Folder, path: str, column: str | None) -> range:
    try:
        with root.open(path) as file:
            parquet = pq.ParquetFile(file)
            image_column(parquet.schema_arrow, column)
            return range(parquet.metadata.num_rows)
    except pa.ArrowInvalid as error:
        raise BadSample(f"Parquet file damaged: {error}") from error


def image_column(schema: pa.Schema, wanted: str | None) -> str:
    """The column with the images of a Parquet file with this `schema`: bytes, or a struct with `bytes`.

    It is `wanted`; by default `image`, or the only one of that type. Raises BadSample if there is none.
    """
    found = [field.name for field in schema if _holds_bytes(field.type)]
    name = wanted or ("image" if "image" in found or len(found) != 1 else found[0])
    if name not in found:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise BadSample(
            f"no column {name!r} of binary data (image_column names another); it has {kinds:.200}"
        )
    return name


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # as Hugging Face's datasets have it
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
