"""The plan of an ingest: which samples go into which shard, decided before any image is read.

All samples are listed, shuffled by a seed and cut into shards; shard k is then a pure function of (listing,
settings, k). The plan's version is a digest of everything that decides the shards' bytes, so a changed
setting or raw file makes a new version beside the old one, never a mixture.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets_prep.errors import UserError, WrongLayout
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.order import shuffled_order, with_held_out
from datasets_prep.plan.split_lists import SplitList, read_lists
from datasets_prep.schema import SCHEMA, SCHEMA_VERSION
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.sources.base import Listing, Rejection, Source, TargetKind
from datasets_prep.sources.folder import DESCRIPTION_NAME, FolderSource
from datasets_prep.sources.samples import Sample, Samples, from_table, pack, unpack
from datasets_prep.storage.folder import Folder, existing_folder
from datasets_prep.storage.listing import FileListing

_CHUNK = 16_384


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The shard file `name`: `count` samples of a `split` in order, `packed` by `samples.pack`."""

    name: str
    split: str
    count: int
    packed: bytes

    @property
    def samples(self) -> list[Sample]:
        """The unpacked samples."""
        return from_table(unpack(self.packed))


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """All shards of one dataset version, and the files that the listing left out.

    Attributes:
        dataset: name of the prepared dataset.
        target_kind: kind of ground truth.
        recorded: settings and provenance, as the manifest has them.
        version: digest of all that decides the shards' bytes.
        shards: all shards, by split.
        rejected: files that were left out while listing, those last that belong to no sample.
        schema: of the shards.
    """

    dataset: str
    target_kind: TargetKind
    recorded: dict[str, Any]
    version: str
    shards: list[ShardPlan]
    rejected: list[Rejection]
    schema: pa.Schema = SCHEMA

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.count for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class IngestPlan(DatasetPlan):
    """The plan of `dpt prepare`.

    Attributes:
        source: key in `SOURCES`; `dataset` differs only for a user's folder.
        raw: URI of the dataset root.
        settings: ingest settings.
        unread: `Listing.unread`.
    """

    source: str
    raw: str
    settings: IngestSettings
    unread: tuple[int, str]


def find_source(name: str) -> Source:
    """The source called `name`. Raises WrongLayout, naming the existing sources."""
    if name not in SOURCES:
        raise WrongLayout(f"unknown dataset {name!r}; there are: {', '.join(sorted(SOURCES))}")
    return SOURCES[name]


def open_source(name: str, raw: str, settings: IngestSettings) -> Source:
    """The source called `name`, configured for the dataset root `raw` by the options in `settings`.

    Raises WrongLayout if there is no such source or option, the folder's description is not valid, or it
    gives the folder the name of a published dataset.
    """
    return _opened(find_source(name), Folder(raw), settings.options)


def dataset_root(source_name: str, raw: str) -> Folder:
    """The dataset root of the source `source_name` at the path or URI `raw`, a folder or an archive.

    In an archive it may lie below folders that hold nothing else. Raises NotFound if there is no such folder;
    UserError if it is another file, or a damaged archive; WrongLayout if there is no such source.
    """
    source, root = find_source(source_name), existing_folder(raw)
    place = root
    while place.in_archive:
        if place.exists(DESCRIPTION_NAME) if isinstance(source, FolderSource) else _recognises(source, place):
            return place
        inside = {path.partition("/")[:2] for path in place.files().visible()[0]}
        folder, slash = inside.pop() if len(inside) == 1 else ("", "")
        if not slash:
            break
        place = place / folder
    return root


def _opened(source: Source, root: Folder, options: Mapping[str, object]) -> Source:
    opened = source.opened(root, options)
    # Two datasets of one name would be taken for two versions of one.
    if isinstance(source, FolderSource) and opened.name in SOURCES:
        raise WrongLayout(f"{DESCRIPTION_NAME}: name: {opened.name!r} is taken by a published dataset")
    return opened


def plan_ingest(
    source_name: str, raw: str, settings: IngestSettings, files: FileListing | None = None
) -> IngestPlan:
    """List a raw dataset and cut it into shards, without reading an image.

    Args:
        source_name: key in `SOURCES`.
        raw: path or URI of the dataset root or of an archive with it.
        settings: ingest settings.
        files: files of the dataset root, if they have been listed before.

    Raises:
        NotFound: if the folder or a list file does not exist.
        UserError: if `raw` is another file, or a damaged archive.
        WrongLayout: if there is no such source, or the folder holds no sample of it.
    """
    root = dataset_root(source_name, raw)
    if files is not None:
        root = root.with_files(files)
    source, lists = open_source(source_name, root.uri, settings), read_lists(settings.lists)
    listing = list_samples(source, root, lists, settings.split_rule)
    if not listing.samples:
        raise WrongLayout(_wrong_layout_message(source, root, listing))
    pa.default_memory_pool().release_unused()
    table = listing.samples.table()
    listing.samples = Samples()
    try:
        order = shuffled_order(table.column("sample_id"), settings.seed)[: settings.limit]
    except UserError as error:
        raise WrongLayout(f"{source_name}: {error}") from error
    version = _version(source, root.files(), table, order, listing.rejected, settings, lists)
    shards, left_out = list(_cut(table, order, settings)), listing.rejected + listing.unused
    return IngestPlan(
        source=source_name,
        dataset=source.name,
        target_kind=source.target_kind,
        raw=root.uri,
        settings=settings,
        recorded=settings.model_dump(),
        version=version,
        shards=shards,
        rejected=left_out,
        unread=listing.unread,
    )


def _wrong_layout_message(source: Source, root: Folder, listing: Listing) -> str:
    found = list(root.files())[:3]
    seen = f"it holds {', '.join(found)}, …" if found else "it is empty"
    others = [other.name for other in SOURCES.values() if other is not source and _recognises(other, root)]
    hint = f" It looks like {' or '.join(others)}." if others else ""
    left_out = [
        f" First file left out: {entry.path}: {entry.reason}."
        for entry in (listing.rejected + listing.unused)[:1]
    ]
    layout = "; ".join(line.strip() for line in source.layout.strip().splitlines())
    return f"no {source.name} sample in {root.uri}: {seen}; expected {layout}.{hint}" + "".join(left_out)


def _recognises(source: Source, root: Folder) -> bool:
    try:
        return bool(_opened(source, root, {}).list(root).samples)
    except WrongLayout:
        return False


def _version(
    source: Source,
    files: FileListing,
    table: pa.Table,
    order: NDArray[np.intp],
    rejected: list[Rejection],
    settings: IngestSettings,
    lists: list[SplitList],
) -> str:
    """Digest of all that decides the shards' bytes and is known without reading the files."""
    state = hashlib.blake2b(digest_size=8)
    decisive = settings.model_dump(exclude={"lists"})
    # A list file's content counts, not its path.
    contents = [[given.split, given.digest] for given in lists]
    what = [SCHEMA_VERSION, source.name, source.fingerprint, decisive, contents]
    state.update(json.dumps(what, sort_keys=True).encode())
    for sample, sizes in _with_sizes(table, order, files):
        found = sorted((role, path, sizes[path]) for role, path in sample.files.items())
        state.update(repr((sample.sample_id, sample.split, sample.group, sample.annotation, found)).encode())
    state.update(repr([(r.path, r.reason) for r in rejected]).encode())
    return state.hexdigest()


def _with_sizes(
    table: pa.Table, order: NDArray[np.intp], files: FileListing
) -> Iterator[tuple[Sample, dict[str, int | None]]]:
    """Samples in their order, each with the sizes of its files (None: not in the folder)."""
    column = table.column("files").combine_chunks()
    sizes = files.sizes_of(column.items)
    offsets = column.offsets.to_numpy()
    for start in range(0, len(order), _CHUNK):
        positions = order[start : start + _CHUNK]
        for position, sample in zip(positions, from_table(table.take(pa.array(positions))), strict=True):
            of_sample = sizes[offsets[position] : offsets[position + 1]].tolist()
            known = (size if size >= 0 else None for size in of_sample)
            yield sample, dict(zip(sample.files.values(), known, strict=True))


def _cut(table: pa.Table, order: NDArray[np.intp], settings: IngestSettings) -> Iterator[ShardPlan]:
    chosen = table.select(["split", "group"]).take(pa.array(order))
    share, seed = settings.validation_share, settings.seed
    splits = with_held_out(chosen.column("split"), chosen.column("group"), share, seed)
    size = settings.samples_per_shard
    for split in sorted(set(np.unique(splits).tolist())):
        positions = order[splits == split]
        for index, start in enumerate(range(0, len(positions), size)):
            part = positions[start : start + size]
            packed = pack(table.take(pa.array(part)))
            yield ShardPlan(f"{split}-{index:05d}.parquet", split, len(part), packed)
