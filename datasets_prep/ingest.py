"""Raw dataset → shards, manifest and quarantine table, on Ray Data.

One task a shard of the plan. A task that dies is simply run again, a finished shard is recognised by its name
and footer and skipped, and killing the job at any moment and running it again ends with the same bytes as one
clean run.

A sample that cannot be used does not stop the job: it is left out and named, with the reason, in the shard's
footer and, at the end, in `quarantine.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from datasets_prep.manifest import (
    LATEST_NAME,
    MANIFEST_NAME,
    QUARANTINE_NAME,
    Manifest,
    NotADataset,
    PreparedDataset,
    Shard,
    open_dataset,
)
from datasets_prep.normalize import normalize
from datasets_prep.schema import ROW_GROUP_ROWS, SCHEMA
from datasets_prep.shard_plan import IngestPlan, IngestSettings, ShardPlan, find_source
from datasets_prep.sources.source import BadSample, Sample, Source, WrongLayout
from datasets_prep.storage import DigestingFolder, Folder

_FOOTER_PLAN = b"dpt.plan"
_FOOTER_QUARANTINE = b"dpt.quarantine"
_BLOB_COLUMNS = {"image", "inverse_depth"}
_QUARANTINE_SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("source_path", pa.string()), ("reason", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is: reported after every finished shard."""

    samples_done: int
    quarantined: int


def ingest(plan: IngestPlan, out: str) -> Iterator[Progress]:
    """Write a plan's shards below `out`/<dataset>, then quarantine table and manifest; Ray must be running.

    Shards that an earlier run finished are kept. A dataset version that is finished is left untouched.

    Yields:
        the progress after each shard; exhaust the iterator to finish the job, then `open_dataset` it.

    Raises:
        WrongLayout: if not one sample could be used; the quarantine table is written all the same.
    """
    folder = Folder(out) / plan.source
    version_folder = folder / plan.version
    folder.remove_partial_files()
    if is_finished(plan, out):
        _point_latest(folder, plan.version)
        return
    results: list[dict[str, Any]] = []
    done, quarantined = 0, len(plan.rejected)
    for result in _run_tasks(plan, version_folder.uri):
        results.append(result)
        done += result["rows"] + len(result["quarantine"])
        quarantined += len(result["quarantine"])
        yield Progress(done, quarantined)
    _close(plan, folder, version_folder, sorted(results, key=lambda r: str(r["name"])))


def is_finished(plan: IngestPlan, out: str) -> bool:
    """Whether that version of the dataset is there already, whole."""
    return (Folder(out) / plan.source / plan.version).exists(MANIFEST_NAME)


def ingest_all(plan: IngestPlan, out: str) -> PreparedDataset:
    """`ingest` without watching it; returns the finished dataset."""
    for _ in ingest(plan, out):
        pass
    return open_dataset((Folder(out) / plan.source / plan.version).uri)


# ---- one shard, in a Ray task


def _run_tasks(plan: IngestPlan, out: str) -> Iterator[dict[str, Any]]:
    """One Ray Data row a shard: what a task needs travels with it, so that no worker holds the whole plan."""
    rows = [{"shard": pickle.dumps(shard)} for shard in plan.shards]
    task = partial(
        write_shard,
        source=plan.source,
        raw=plan.raw,
        out=out,
        version=plan.version,
        settings=plan.settings.model_dump(),
    )
    for row in ray.data.from_items(rows, override_num_blocks=len(rows)).map(task).iter_rows():
        yield json.loads(row["result"])


def write_shard(
    row: dict[str, Any], *, source: str, raw: str, out: str, version: str, settings: dict[str, Any]
) -> dict[str, str]:
    """Write one shard, unless it is there already; returns its summary as JSON."""
    plan: ShardPlan = pickle.loads(row["shard"])
    folder = Folder(out)
    quarantine = _finished_quarantine(folder, plan.name, version)
    if quarantine is None:
        cv2.setNumThreads(1)
        with folder.writing(plan.name) as path:
            quarantine = _write_rows(
                path, plan, find_source(source), raw, version, IngestSettings(**settings)
            )
            summary = _summary(path, plan, quarantine)
    else:
        with folder.fs.open(folder.path_of(plan.name)) as file:
            summary = _summary(file, plan, quarantine)
    return {"result": json.dumps(summary)}


def _finished_quarantine(folder: Folder, name: str, version: str) -> list[dict[str, str]] | None:
    """What a finished shard left out, or None if the shard is not there."""
    if not folder.exists(name):
        return None
    try:
        with folder.fs.open(folder.path_of(name)) as file:
            metadata = pq.ParquetFile(file).metadata.metadata or {}
    except pa.ArrowInvalid:  # damaged since it was written: make it again
        return None
    if metadata.get(_FOOTER_PLAN) != version.encode():
        raise NotADataset(f"{folder.path_of(name)} belongs to another plan; remove it and run again")
    quarantine: list[dict[str, str]] = json.loads(metadata[_FOOTER_QUARANTINE])
    return quarantine


def _write_rows(
    path: Path, plan: ShardPlan, source: Source, raw: str, version: str, settings: IngestSettings
) -> list[dict[str, str]]:
    """Read, normalise and write a shard's samples a row group at a time; returns what was left out."""
    root = DigestingFolder(raw)
    quarantine: list[dict[str, str]] = []
    group: list[dict[str, Any]] = []
    small = [name for name in SCHEMA.names if name not in _BLOB_COLUMNS]
    with pq.ParquetWriter(
        path,
        SCHEMA,
        # The two big columns are compressed already; a second pass costs time and saves nothing.
        compression={name: "none" if name in _BLOB_COLUMNS else "zstd" for name in SCHEMA.names},
        use_dictionary=["dataset", "split", "target_kind"],
        write_statistics=small,
        write_page_checksum=True,
    ) as writer:
        for sample in plan.samples:
            try:
                group.append(_row(source, root, sample, plan.split, settings))
            except BadSample as error:
                quarantine.append(
                    {
                        "sample_id": sample.sample_id,
                        "source_path": sample.files["image"],
                        "reason": str(error),
                    }
                )
            if len(group) == ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, SCHEMA))
                group.clear()
        if group:
            writer.write_table(pa.Table.from_pylist(group, SCHEMA))
        writer.add_key_value_metadata({_FOOTER_PLAN: version, _FOOTER_QUARANTINE: json.dumps(quarantine)})
    return quarantine


def _row(
    source: Source, root: DigestingFolder, sample: Sample, split: str, settings: IngestSettings
) -> dict[str, Any]:
    root.take_digest()
    try:
        raw = source.read(root, sample)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BadSample(f"{type(error).__name__}: {error}") from error
    digest = root.take_digest()
    pixels = normalize(
        raw,
        source.target_kind,
        side=settings.side,
        rule=settings.resize,
        jpeg_quality=settings.jpeg_quality,
        min_valid_share=settings.min_valid_share,
        sizes_may_differ=source.sizes_may_differ,
    )
    return {
        "sample_id": sample.sample_id,
        "dataset": source.name,
        "split": split,
        "source_path": sample.files["image"],
        "source_digest": digest,
        **pixels,
    }


def _summary(file: Any, plan: ShardPlan, quarantine: list[dict[str, str]]) -> dict[str, Any]:
    """What the manifest needs to know of a written shard: `file` is a path or an open file."""
    content = file.read_bytes() if isinstance(file, Path) else file.read()
    parquet = pq.ParquetFile(pa.BufferReader(content))
    sums = {
        name: float(np.sum(parquet.read([name]).column(name).to_numpy(), dtype=np.float64))
        for name in ("valid_share", "sky_share", "inverse_depth_median")
    }
    metadata = parquet.metadata
    return {
        "name": plan.name,
        "split": plan.split,
        "rows": metadata.num_rows,
        "row_groups": [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)],
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sums": sums,
        "quarantine": quarantine,
    }


# ---- the end


def _close(plan: IngestPlan, folder: Folder, version_folder: Folder, results: list[dict[str, Any]]) -> None:
    """Write quarantine table and manifest, then point `latest.json` at this version."""
    rejected = [
        {"sample_id": "", "source_path": rejection.path, "reason": rejection.reason}
        for rejection in plan.rejected
    ]
    quarantine = rejected + [entry for result in results for entry in result["quarantine"]]
    with version_folder.writing(QUARANTINE_NAME) as path:
        pq.write_table(pa.Table.from_pylist(quarantine, _QUARANTINE_SCHEMA), path)
    rows = sum(result["rows"] for result in results)
    if rows == 0:
        raise WrongLayout(
            f"none of the {plan.samples} {plan.source} samples could be used; first reason: "
            f"{quarantine[0]['source_path']}: {quarantine[0]['reason']} "
            f"(all of them: {version_folder.uri}/{QUARANTINE_NAME})"
        )
    samples: Counter[str] = Counter()
    for result in results:
        samples[result["split"]] += result["rows"]
    fields = ("name", "split", "rows", "row_groups", "bytes", "sha256")
    manifest = Manifest(
        dataset=plan.source,
        target_kind=find_source(plan.source).target_kind,
        version=plan.version,
        settings=plan.settings.model_dump(),
        samples={split: count for split, count in sorted(samples.items()) if count},
        quarantined=len(quarantine),
        statistics={
            f"mean_{name}": sum(result["sums"][name] for result in results) / rows
            for name in results[0]["sums"]
        },
        shards=[Shard(**{field: result[field] for field in fields}) for result in results if result["rows"]],
    )
    version_folder.write_text(MANIFEST_NAME, manifest.to_json())
    _point_latest(folder, plan.version)


def _point_latest(folder: Folder, version: str) -> None:
    content = json.dumps({"version": version}) + "\n"
    if not folder.exists(LATEST_NAME) or folder.read_text(LATEST_NAME) != content:
        folder.write_text(LATEST_NAME, content)
