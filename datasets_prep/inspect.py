"""`dpt inspect`: is a prepared dataset what its manifest says, and what does it look like?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets_prep.contact_sheet import contact_sheet
from datasets_prep.formats import encode_png
from datasets_prep.manifest import PreparedDataset, Shard
from datasets_prep.schema import SCHEMA, decode_image, decode_inverse_depth
from dpt.predict import colourise

_STATISTICS = ("height", "width", "valid_share", "sky_share", "inverse_depth_median")
_QUANTILES = {"minimum": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "maximum": 1.0}


@dataclass(slots=True)
class Inspection:
    """What was found: `rows` holds a line of text cells a statistic, under `columns`."""

    dataset: str
    columns: list[str]
    rows: dict[str, list[str]]
    problems: list[str] = field(default_factory=list)


def verify(prepared: PreparedDataset) -> Inspection:
    """Compare every shard with the manifest, byte for byte, and collect statistics over all samples."""
    problems: list[str] = []
    statistics: dict[str, list[NDArray[Any]]] = {name: [] for name in _STATISTICS}
    for shard in prepared.manifest.shards:
        table = _verified_table(prepared, shard, problems)
        if table is not None:
            for name in _STATISTICS:
                statistics[name].append(table.column(name).to_numpy())
    counts = ", ".join(f"{count} {split}" for split, count in prepared.manifest.samples.items())
    size = sum(shard.bytes for shard in prepared.manifest.shards) / 2**20
    title = (
        f"{prepared.name}: {counts}; {prepared.manifest.quarantined} quarantined; "
        f"{prepared.manifest.target_kind}; {size:.1f} MiB in {len(prepared.manifest.shards)} shards"
    )
    rows = {name: _quantiles(np.concatenate(values)) for name, values in statistics.items() if values}
    return Inspection(title, list(_QUANTILES), rows, problems)


def _verified_table(prepared: PreparedDataset, shard: Shard, problems: list[str]) -> pa.Table | None:
    """The statistics columns of a shard, or None and a problem noted if it cannot be trusted."""
    try:
        content = prepared.folder.read_bytes(shard.name)
    except FileNotFoundError:
        problems.append(f"{shard.name} is missing")
        return None
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        problems.append(f"{shard.name} differs from its digest in the manifest")
        return None
    file = pq.ParquetFile(pa.BufferReader(content))
    if not file.schema_arrow.equals(SCHEMA):
        problems.append(f"{shard.name} has another schema: {file.schema_arrow.names}")
        return None
    return file.read(columns=list(_STATISTICS))


def _quantiles(values: NDArray[Any]) -> list[str]:
    found = np.quantile(values.astype(np.float64), list(_QUANTILES.values()))
    return [f"{value:.0f}" if value == round(value) and abs(value) > 1 else f"{value:.3f}" for value in found]


def draw_contact_sheet(prepared: PreparedDataset, path: Path, samples: int, seed: int = 0) -> Path:
    """Draw random samples (image, inverse depth, validity; grey is sky) into a PNG; returns its path."""
    rows = _random_rows(prepared, samples, seed)
    pictures = [_pictures_of(row) for row in rows]
    # Two samples a line, as in a book.
    lines = [list(chain.from_iterable(pictures[i : i + 2])) for i in range(0, len(pictures), 2)]
    titles = ["   |   ".join(row["sample_id"] for row in rows[i : i + 2]) for i in range(0, len(rows), 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(contact_sheet(lines, titles)))
    return path


def _random_rows(prepared: PreparedDataset, samples: int, seed: int) -> list[dict[str, Any]]:
    """Rows drawn without replacement, each from its own row group as long as there are enough of these."""
    groups = [(shard, i) for shard in prepared.manifest.shards for i in range(len(shard.row_groups))]
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(groups))[:samples]
    per_group = -(-samples // len(chosen))
    rows: list[dict[str, Any]] = []
    for index in chosen:
        shard, group = groups[index]
        with prepared.folder.fs.open(prepared.folder.path_of(shard.name)) as file:
            table = pq.ParquetFile(file).read_row_group(group)
        picked = generator.permutation(table.num_rows)[:per_group]
        rows += table.take(picked).to_pylist()
    return rows[:samples]


def _pictures_of(row: dict[str, Any]) -> list[NDArray[np.uint8]]:
    inverse_depth = decode_inverse_depth(row["inverse_depth"], row["height"], row["width"]).astype(np.float32)
    validity = np.where(np.isnan(inverse_depth), 0, np.where(inverse_depth == 0, 128, 255)).astype(np.uint8)
    return [decode_image(row["image"]), colourise(inverse_depth), np.repeat(validity[..., None], 3, axis=2)]
