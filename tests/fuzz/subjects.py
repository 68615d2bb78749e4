"""What is damaged: real-format files of a miniature of every dataset, written by the generator.

A dataset that is registered later needs nothing here: its files are found through its own listing.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from datasets_prep.formats import pictures as formats
from datasets_prep.formats.hdf5 import encode_hdf5_arrays
from datasets_prep.ingest.shard_file import writing_shard
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.shards import open_source
from datasets_prep.schema import SCHEMA, encode_inverse_depth
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import WRITERS, write_dataset
from tests.fuzz.file_format import file_format, is_text
from tests.fuzz.hostile_maps import HEIGHT, WIDTH
from tests.fuzz.reading import list_folder, read_list, read_list_of_clips, read_sample, read_shard, read_video

SCENES = 2
ALIKE = 3  # Of files of one format in one dataset, that are not of samples, so many are taken.


@dataclass(frozen=True)
class Subject:
    """One good file of a dataset in the folder `root`, and who reads it.

    The reader is called with the paths of a copy of `root` and of a folder beside it, then `arguments`.
    """

    root: Path
    path: str
    format: str
    reader: Callable[..., None]
    arguments: tuple[object, ...]

    @property
    def content(self) -> bytes:
        """The good file's bytes."""
        return (self.root / self.path).read_bytes()


def find_subjects(scratch: Path) -> list[Subject]:
    """Write a miniature of every dataset below `scratch`; returns each kind of file of each of them."""
    roots: dict[int, Path] = {}
    subjects: list[Subject] = []
    for name in SOURCES:
        writer = WRITERS[name]
        if id(writer) not in roots:  # some sources read one layout in two ways
            roots[id(writer)] = scratch / name
            write_dataset(name, scratch / name, SCENES, height=HEIGHT, width=WIDTH)
        subjects += _subjects_of(name, roots[id(writer)])
    return [*subjects, _shard(scratch / "shards")]


def _subjects_of(name: str, root: Path) -> Iterator[Subject]:
    folder = Folder(root)
    source = open_source(name, str(root), IngestSettings())
    samples = list_samples(source, folder).samples
    assert samples, f"the generator's {name} has no sample"
    kinds = set()
    for sample in samples:
        of_sample = [_subject(root, path, read_sample, name, sample) for path in sample.files.values()]
        if (kind := tuple(subject.format for subject in of_sample)) not in kinds:
            kinds.add(kind)
            yield from of_sample
    of_samples = {path for sample in samples for path in sample.files.values()}
    seen: Counter[str] = Counter()
    for path in sorted(set(folder.files()) - of_samples):
        kind = file_format(path, (root / path).read_bytes())
        seen[kind] += 1
        if seen[kind] > ALIKE:
            continue
        if is_text(kind):
            yield _subject(root, path, list_folder, name)
        if kind == "pickle":
            yield _subject(root, path, read_list_of_clips, path)
        if kind in ("list .txt", "list .list", "pickle"):
            yield _subject(root, path, read_list, name, path)
        if kind == "video":
            yield _subject(root, path, read_video, path)


def _subject(root: Path, path: str, reader: Callable[..., None], *arguments: object) -> Subject:
    return Subject(root, path, file_format(path, (root / path).read_bytes()), reader, arguments)


def _shard(root: Path) -> Subject:
    """A shard of this project's own."""
    root.mkdir()
    path = "train-00000.parquet"
    ramp = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    texts = {name: "text" for name in SCHEMA.names if SCHEMA.field(name).type == pa.string()}
    image = formats.encode_jpeg(np.dstack([ramp * 255] * 3).astype(np.uint8))
    pixels = {"image": image, "inverse_depth": encode_inverse_depth(ramp)}
    row = {**texts, **pixels, "height": HEIGHT, "width": WIDTH}
    with writing_shard(root / path, "version") as shard:
        for _ in range(3):
            shard.add(row)
    return _subject(root, path, read_shard, path)


@contextmanager
def damaged_copy(
    subject: Subject, content: bytes, size: int | None, scratch: Path
) -> Iterator[tuple[Path, Path]]:
    """The dataset's folder with one file replaced, and a folder beside it that must not be looked into.

    A new place for every case: a reader that keeps files open must not show an older one. With a `size`, the
    file is made that long; the rest is a hole that takes no space.
    """
    case = Path(tempfile.mkdtemp(prefix="case-", dir=scratch))
    root, outside = case / "raw", case / "outside"
    shutil.copytree(subject.root, root, copy_function=os.link)
    outside.mkdir()
    (outside / "secret.png").write_bytes(formats.encode_png(np.full((HEIGHT, WIDTH), 7, np.uint16)))
    (outside / "secret.h5").write_bytes(encode_hdf5_arrays({"depth": np.ones((HEIGHT, WIDTH), np.float32)}))
    victim = root / subject.path
    victim.unlink()
    victim.write_bytes(content)
    if size is not None:
        os.truncate(victim, size)
    try:
        yield root, outside
    finally:
        shutil.rmtree(case)
