"""Raw dataset → shards, manifest and quarantine table, on Ray Data.

Tasks write whole shards of the plan and are idempotent: a task that dies is run again, a finished shard is
recognised by its name and footer and skipped. A job that is killed at any moment and run again ends with the
same bytes as one clean run.

A sample that cannot be used does not stop the job: it is left out and listed, with the reason, in the shard's
footer and finally in `_quarantine.parquet`. A storage failure leaves nothing out: the shard is tried again
when the others are done, and if it still cannot be written the job stops, to be run again.
"""

import hashlib
import itertools
import json
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TextIO

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from datasets_prep.errors import BadSample, Note, UserError, WrongLayout
from datasets_prep.ingest.gauges import IngestGauges
from datasets_prep.ingest.hugging_face import CARD_NAME, card
from datasets_prep.ingest.row import make_row
from datasets_prep.ingest.shard_file import (
    AVERAGED_COLUMNS,
    ShardWriter,
    describe_shard,
    is_finished_shard,
    writing_shard,
)
from datasets_prep.manifest import (
    LATEST_NAME,
    MANIFEST_NAME,
    QUARANTINE_NAME,
    Manifest,
    PreparedDataset,
    Shard,
    open_dataset,
)
from datasets_prep.plan.shards import DatasetPlan, IngestPlan, ShardPlan, open_source
from datasets_prep.progress import Progress
from datasets_prep.schema import SCHEMA
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import Source
from datasets_prep.storage.folder import DigestingFolder, Folder
from datasets_prep.storage.retries import CannotWrite, StorageFailed
from datasets_prep.storage.sealed import sealed

ROUNDS = 3
"""Attempts per shard if storage fails; within each, every read and write is retried several times."""

MAX_FAILED_SHARDS = 16
"""If this many shards fail in one round, the cause is not transient: the job stops at once."""

_MOST_DEATHS = 3
"""Actors of Ray Data that may die one after the other before any has started."""

_TASKS = 64
# Small shards are grouped into tasks of about this many images, once there are more than `_TASKS`.
_IMAGES_A_TASK = 256
_QUARANTINE_SCHEMA = pa.schema(dict.fromkeys(("sample_id", "source_path", "reason"), pa.string()))


RunRound = Callable[[list[ShardPlan]], Iterator[dict[str, Any]]]
"""Works on the shards once, in any order: a result for each, see `reported`."""


def ingest(plan: IngestPlan, out: str) -> Iterator[Progress]:
    """`write_dataset` of a `plan` of raw data below `out`, on Ray, which must be running."""
    version_folder = Folder(out) / plan.dataset / plan.version
    yield from write_dataset(plan, out, lambda shards: _run_round(plan, version_folder.uri, shards))


def write_dataset(plan: DatasetPlan, out: str, run_round: RunRound) -> Iterator[Progress]:
    """Write a plan's shards below `out`/<dataset>, then quarantine table and manifest.

    Shards that an earlier run finished are kept. A finished dataset version is left untouched.

    Args:
        plan: shards to write.
        out: path or URI of the folder of prepared datasets.
        run_round: writes shards; each result has what `write_once` returns.

    Yields:
        The progress in samples after each shard; exhaust the iterator to finish the job.

    Raises:
        WrongLayout: if no sample could be used; the quarantine table is written nevertheless.
    """
    folder = Folder(out) / plan.dataset
    version_folder = folder / plan.version
    folder.remove_partial_files()
    if is_finished(plan, out):
        _point_latest(folder, plan.version)
        return
    results: list[dict[str, Any]] = []
    done, quarantined, gauges = 0, len(plan.rejected), IngestGauges(plan.dataset)
    for result in run_shards(plan.shards, run_round):
        results.append(result)
        done += result["rows"] + len(result["quarantine"])
        quarantined += len(result["quarantine"])
        state = Progress(done, plan.samples, quarantined)
        gauges.set(state)
        yield state
    folder.remove_partial_files()  # of workers that died while Ray continued
    _close(plan, folder, version_folder, sorted(results, key=lambda r: str(r["name"])))


def is_finished(plan: DatasetPlan, out: str) -> bool:
    """Whether the dataset version of `plan` is finished below `out`."""
    return (Folder(out) / plan.dataset / plan.version).exists(MANIFEST_NAME)


def ingest_all(plan: IngestPlan, out: str) -> PreparedDataset:
    """`ingest` the `plan` to `out` without showing progress; returns the finished dataset."""
    for _ in ingest(plan, out):
        pass
    return open_dataset((Folder(out) / plan.dataset / plan.version).uri)


# ---- shards, in Ray tasks


def run_shards(shards: list[ShardPlan], run_round: RunRound) -> Iterator[dict[str, Any]]:
    """The result of `run_round` for each of `shards`, in order of completion; those retried come last.

    Raises StorageFailed if storage fails for a shard in every round.
    """
    waiting = shards
    for _ in range(ROUNDS):
        failed: dict[str, str] = {}
        for result in run_round(waiting):
            if "failure" not in result:
                yield result
                continue
            failed[result["name"]] = result["failure"]
            if len(failed) == MAX_FAILED_SHARDS:
                break
        if not failed:
            return
        waiting = [shard for shard in shards if shard.name in failed]
        if len(failed) == MAX_FAILED_SHARDS:
            break
    name, reason = next(iter(failed.items()))
    raise StorageFailed(
        f"{len(failed)} of {len(shards)} shards cannot be written; {name}: {reason} "
        "(run the command again: finished shards are kept)"
    )


def _run_round(plan: IngestPlan, out: str, shards: list[ShardPlan]) -> Iterator[dict[str, Any]]:
    job: dict[str, Any] = {"source": plan.source, "raw": plan.raw, "out": out, "version": plan.version}
    yield from map_shards(shards, partial(write_shard, settings=plan.settings.model_dump(), **job))


def map_shards(shards: list[ShardPlan], task: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """The results of a `task` of `reported`, a function or a class of actors, for each of `shards`.

    Each Ray Data row carries a shard's samples, so that no worker holds the whole plan. `options` are of
    `ray.data.Dataset.map`. Raises UserError for a mistake.
    """
    rows = [{"shard": pickle.dumps(shard)} for shard in shards]
    samples = sum(shard.count for shard in shards)
    blocks = min(len(rows), max(_TASKS, samples // _IMAGES_A_TASK))
    dataset = ray.data.from_items(rows, override_num_blocks=blocks)
    # By default the first worker that is lost while it loads a model ends the job.
    dataset.context.max_consecutive_actor_init_deaths = _MOST_DEATHS
    for row in dataset.map(task, **options).iter_rows():
        result = json.loads(row["result"])
        if "mistake" in result:
            raise UserError(result["mistake"])
        yield result


def write_shard(
    row: dict[str, Any], *, source: str, raw: str, out: str, version: str, settings: dict[str, Any]
) -> dict[str, str]:
    """Write the shard whose pickled `ShardPlan` is in `row` to `out`, the version's folder, unless done.

    `source` is a key in `SOURCES`, `raw` the dataset root, `version` the plan's digest and `settings` are
    those of the ingest as a dictionary. Returns what `reported` does, of `write_once`.
    """

    def write(plan: ShardPlan) -> dict[str, Any]:
        chosen = IngestSettings(**settings)
        opened, root = open_source(source, raw, chosen), DigestingFolder(raw)
        cv2.setNumThreads(1)
        add_rows = partial(_add_rows, plan=plan, source=opened, root=root, settings=chosen)
        return write_once(Folder(out), plan.name, version, add_rows)

    return reported(row, write)


def reported(row: dict[str, Any], work: Callable[[ShardPlan], dict[str, Any]]) -> dict[str, str]:
    """Do the `work` on the shard whose pickled `ShardPlan` is in `row`.

    Returns `result`, as JSON: its name, split and what `work` returns; or a `failure` of storage, or a
    `mistake` that only the user can fix. (An exception would end the other tasks too, and hide its message.)
    """
    plan: ShardPlan = pickle.loads(row["shard"])
    result: dict[str, Any] = {"name": plan.name, "split": plan.split}
    try:
        result |= work(plan)
    except CannotWrite as error:
        result["mistake"] = str(error)
    except OSError as error:  # storage gone
        result["failure"] = str(error)
    except UserError as error:
        result["mistake"] = str(error)
    return {"result": json.dumps(result)}


def write_once(
    folder: Folder,
    name: str,
    version: str,
    add_rows: Callable[[ShardWriter], None],
    schema: pa.Schema = SCHEMA,
) -> dict[str, Any]:
    """Write the shard `name` of the plan `version` to `folder` unless it is finished: `describe_shard` of it.

    `add_rows` adds its rows, of `schema`, and lists what is left out.
    """
    if is_finished_shard(folder, name, version):
        with folder.open(name) as file:
            return describe_shard(file)
    with folder.writing(name) as path:
        with writing_shard(path, version, schema) as shard:
            add_rows(shard)
        with path.open("rb") as file:
            return describe_shard(file)


def _add_rows(
    shard: ShardWriter, plan: ShardPlan, source: Source, root: DigestingFolder, settings: IngestSettings
) -> None:
    """Read, normalise and add a shard's samples; unusable ones are quarantined."""
    with collecting_notes() as notes:
        for sample in plan.samples:
            notes.clear()
            try:
                shard.add(make_row(source, root, sample, plan.split, settings))
                shard.notes.update(notes)
            except BadSample as error:
                where = {"sample_id": sample.sample_id, "source_path": sample.files["image"]}
                shard.quarantine.append({**where, "reason": str(error)})


@contextmanager
def collecting_notes() -> Iterator[list[str]]:
    """A list to which each `Note` said in the block is appended; other warnings are shown as ever."""
    notes: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, Note):
                notes.append(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = collect
        warnings.simplefilter("always", Note)
        yield notes


# ---- the end


def _close(plan: DatasetPlan, folder: Folder, version_folder: Folder, results: list[dict[str, Any]]) -> None:
    """Write quarantine table and manifest, then point `latest.json` at this version."""
    quarantine = [{"sample_id": "", "source_path": r.path, "reason": r.reason} for r in plan.rejected]
    quarantine += itertools.chain.from_iterable(result["quarantine"] for result in results)
    with version_folder.writing(QUARANTINE_NAME) as path:
        pq.write_table(pa.Table.from_pylist(quarantine, _QUARANTINE_SCHEMA), path)
        quarantine_digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = sum(result["rows"] for result in results)
    if rows == 0:
        raise WrongLayout(
            f"none of the {plan.samples} {plan.dataset} samples could be used; first reason: "
            f"{quarantine[0]['source_path']}: {quarantine[0]['reason']} "
            f"(all of them: {version_folder.uri}/{QUARANTINE_NAME})"
        )
    samples: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for result in results:
        samples[result["split"]] += result["rows"]
        notes.update(result["notes"])
    version_folder.write_text(CARD_NAME, card(plan.schema))
    fields = ("name", "split", "rows", "row_groups", "bytes", "sha256")
    manifest = Manifest(
        dataset=plan.dataset,
        target_kind=plan.target_kind,
        version=plan.version,
        settings=plan.recorded,
        samples={split: count for split, count in sorted(samples.items()) if count},
        quarantined=len(quarantine),
        quarantine_sha256=quarantine_digest,
        statistics=_means(results),
        notes=dict(notes),
        shards=[Shard(**{field: result[field] for field in fields}) for result in results if result["rows"]],
    )
    version_folder.write_text(MANIFEST_NAME, manifest.to_json())
    _point_latest(folder, plan.version)


def _means(results: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each column over all samples that have a value."""
    means = {}
    for name in AVERAGED_COLUMNS:
        found = [result["sums"][name] for result in results if name in result["sums"]]
        sums, counts = zip(*found, strict=True) if found else ((), ())
        if sum(counts):
            means[f"mean_{name}"] = sum(sums) / sum(counts)
    return means


def _point_latest(folder: Folder, version: str) -> None:
    folder.update_text(LATEST_NAME, sealed({"version": version}))
