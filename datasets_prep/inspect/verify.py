"""`dpt inspect`: verification of a prepared dataset against its manifest, statistics and pictures."""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_png
from datasets_prep.ingest.shard_file import digest_file
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.inspect.row_pictures import pictures_of_row
from datasets_prep.manifest import QUARANTINE_NAME, PreparedDataset, Shard
from datasets_prep.schema import LABELLED_SCHEMA, SCHEMA
from datasets_prep.storage.sealed import DamagedFile

_STATISTICS = (
    *("height", "width", "valid_share", "sky_share"),
    *("inverse_depth_min", "inverse_depth_median", "inverse_depth_max"),
    "agreement",
)
_QUANTILES = {"minimum": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "maximum": 1.0}
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Samples that were left out for similar reasons: their `count`, a `reason` and an `example`'s path."""

    count: int
    reason: str
    example: str


@dataclass(slots=True)
class Inspection:
    """Result of a verification.

    Attributes:
        name: name of the dataset.
        dataset: its description in a line.
        columns: titles of the quantiles over all samples.
        rows: statistic → its quantiles as text; statistics that no sample has are omitted.
        quarantine: samples that were left out, the most frequent reasons first.
        problems: deviations from the manifest, one line each.
        sound: the part of the dataset that agrees with the manifest.
    """

    name: str
    dataset: str
    columns: list[str]
    rows: dict[str, list[str]]
    quarantine: list[LeftOut]
    problems: list[str]
    sound: PreparedDataset


def verify(prepared: PreparedDataset) -> Inspection:
    """Compare every shard of `prepared` with its digest, and collect statistics over all samples."""
    problems: list[str] = []
    sound: list[Shard] = []
    statistics: dict[str, list[NDArray[Any]]] = {name: [] for name in _STATISTICS}
    for shard in prepared.manifest.shards:
        table = _verified_table(prepared, shard, problems)
        if table is not None:
            sound.append(shard)
            for name in table.column_names:
                statistics[name].append(pc.drop_null(table.column(name)).to_numpy())
    values = {name: np.concatenate(parts) for name, parts in statistics.items() if parts}
    return Inspection(
        name=prepared.name,
        dataset=_describe(prepared),
        columns=list(_QUANTILES),
        rows={name: _quantiles(found) for name, found in values.items() if found.size},
        quarantine=_read_quarantine(prepared, problems),
        problems=problems,
        sound=replace(prepared, manifest=replace(prepared.manifest, shards=sound)),
    )


def _describe(prepared: PreparedDataset) -> str:
    manifest = prepared.manifest
    counts = ", ".join(f"{count} {split}" for split, count in manifest.samples.items())
    size = sum(shard.bytes for shard in manifest.shards) / 2**20
    return (
        f"{prepared.name}: {counts}; {manifest.quarantined} quarantined; "
        f"{manifest.target_kind}; {size:.1f} MiB in {len(manifest.shards)} shards"
    )


def _verified_table(prepared: PreparedDataset, shard: Shard, problems: list[str]) -> pa.Table | None:
    """The statistics columns of a shard; None, with a problem added, if it cannot be trusted."""
    try:
        with prepared.folder.open(shard.name) as file:
            if digest_file(file) != (shard.bytes, shard.sha256):
                problems.append(f"{shard.name} differs from its digest in the manifest")
                return None
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            if not any(schema.equals(known) for known in (SCHEMA, LABELLED_SCHEMA)):
                problems.append(f"{shard.name} has another schema: {schema.names}")
                return None
            return parquet.read(columns=[name for name in _STATISTICS if name in schema.names])
    except FileNotFoundError:
        problems.append(f"{shard.name} is missing")
        return None


def _quantiles(values: NDArray[Any]) -> list[str]:
    found = np.quantile(values.astype(np.float64), list(_QUANTILES.values()))
    return [f"{value:.0f}" if value == round(value) and abs(value) > 1 else f"{value:.3f}" for value in found]


def _read_quarantine(prepared: PreparedDataset, problems: list[str]) -> list[LeftOut]:
    """The samples that were left out, by reason; see `by_reason`."""
    try:
        entries = prepared.read_quarantine()
    except FileNotFoundError:
        problems.append(f"{QUARANTINE_NAME} is missing")
        return []
    except DamagedFile as error:
        problems.append(str(error))
        return []
    return by_reason(entries)


def by_reason(entries: Sequence[Mapping[str, str]]) -> list[LeftOut]:
    """The `entries` of a quarantine table by reason, the most frequent first.

    Reasons that differ only in numbers and in the name of their own file count as one.
    """
    kinds = [_kind_of_reason(entry) for entry in entries]
    first = dict(zip(reversed(kinds), reversed(entries), strict=True))
    frequent = [(count, first[kind]) for kind, count in Counter(kinds).most_common()]
    return [LeftOut(count, entry["reason"], entry["source_path"]) for count, entry in frequent]


def _kind_of_reason(entry: Mapping[str, str]) -> str:
    name = posixpath.splitext(entry["source_path"].partition("/")[2])[0]
    reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "*", entry["reason"]) if name else entry["reason"]
    return _NUMBER.sub("#", reason)


# ---- what it looks like


def draw_contact_sheet(prepared: PreparedDataset, path: Path, samples: int, seed: int = 0) -> Path:
    """Draw `samples` rows of `prepared`, chosen by `seed`, into the PNG `path`, which is returned.

    Of each there are image, ground truth and validity (grey is sky).
    """
    rows = random_rows(prepared, samples, seed)
    pictures = [pictures_of_row(row) for row in rows]
    # Two samples per line.
    lines = [list(chain.from_iterable(pictures[i : i + 2])) for i in range(0, len(pictures), 2)]
    titles = ["   |   ".join(row["sample_id"] for row in rows[i : i + 2]) for i in range(0, len(rows), 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(contact_sheet(lines, titles)))
    return path


def random_rows(prepared: PreparedDataset, samples: int, seed: int = 0) -> list[dict[str, Any]]:
    """`samples` rows of `prepared` drawn by `seed` without replacement, of different row groups."""
    groups = [(shard, i) for shard in prepared.manifest.shards for i in range(len(shard.row_groups))]
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(groups))[:samples]
    per_group = -(-samples // max(1, len(chosen)))
    rows: list[dict[str, Any]] = []
    for index in chosen:
        shard, group = groups[index]
        with prepared.folder.open(shard.name) as file:
            table = pq.ParquetFile(file).read_row_group(group)
        picked = generator.permutation(table.num_rows)[:per_group]
        rows += table.take(picked).to_pylist()
    return rows[:samples]
