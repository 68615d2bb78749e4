"""The work of `dpt label` on Ray: actors that label shards, tasks that hash pictures."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

import dpt
from datasets_prep.errors import BadSample
from datasets_prep.ingest.run import map_shards, reported, run_shards, write_once
from datasets_prep.plan.shards import DatasetPlan, ShardPlan
from datasets_prep.schema import LABELLED_SCHEMA
from datasets_prep.sources.base import Rejection
from datasets_prep.storage.folder import Folder
from pipelines.cluster.actors import saying_which_actors_died
from pipelines.cluster.session import require_room, room_for_workers, wants_gpu
from pipelines.config import LabelConfig
from pipelines.labelling.duplicates import BITS, near_duplicates, perceptual_hash
from pipelines.labelling.labeller import Labeller
from pipelines.labelling.reading import fetching
from pipelines.prediction.decoding import decode_image

DUPLICATES_NAME = "duplicates.parquet"
_DUPLICATES_SCHEMA = pa.schema(dict.fromkeys(("path", "reason"), pa.string()))


class LabellingActor:
    """A worker: the model on its device.

    Args:
        shipped: the files of the model's folder by name.
        settings: of the job.
        plan: dataset and version.
        out: URI of the version's folder.
        device: `cpu` or `cuda`.
    """

    def __init__(
        self,
        shipped: Any,
        settings: LabelConfig,
        dataset: str,
        version: str,
        out: str,
        device: str,
    ) -> None:
        torch.set_num_threads(settings.threads)
        files: Mapping[str, bytes] = ray.get(shipped) if isinstance(shipped, ray.ObjectRef) else shipped
        with tempfile.TemporaryDirectory(prefix="dpt-model-") as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            model = dpt.load_model(folder)
        self._labeller = Labeller(model, device, settings, dataset)
        self._version, self._folder = version, Folder(out)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Label the shard in `row` and write it, unless it is finished; see `ingest.run.reported`."""
        return reported(row, self._write)

    def _write(self, plan: ShardPlan) -> dict[str, Any]:
        add_rows = partial(self._labeller.add_rows, plan=plan)
        return write_once(self._folder, plan.name, self._version, add_rows, LABELLED_SCHEMA)


def label_shards(
    plan: DatasetPlan,
    out: str,
    files: Mapping[str, bytes],
    settings: LabelConfig,
    say: Callable[[str], None],
    shards: list[ShardPlan],
) -> Iterator[dict[str, Any]]:
    """Label `shards` of a `plan` in a pool of actors, and write them to the version's folder below `out`.

    `settings` are the job's, `files` those of the model's folder: they travel through Ray, since the driver's
    disk is not the workers'. `say` takes a line on each actor that dies. Yields the results of the shards, as
    `ingest.run.RunRound` says.

    Raises:
        ConfigError: if the workers do not fit on this machine.
    """
    use_gpu = wants_gpu(settings.device)
    folder = (Folder(out) / plan.dataset / plan.version).uri
    device = "cuda" if use_gpu else "cpu"
    with saying_which_actors_died(say):
        yield from map_shards(
            shards,
            LabellingActor,
            fn_constructor_args=(ray.put(dict(files)), settings, plan.dataset, plan.version, folder, device),
            compute=ray.data.ActorPoolStrategy(size=min(len(shards), workers_of(settings, use_gpu))),
            num_cpus=settings.threads,
            num_gpus=settings.gpus if use_gpu else 0,
        )


def workers_of(settings: LabelConfig, use_gpu: bool) -> int:
    """The number of workers by `settings`: as given, or as many as fit on the present nodes, at least 1.

    With `use_gpu` each has its share of a GPU.

    Raises:
        ConfigError: if they do not fit on this machine.
    """
    if settings.workers is not None:
        if not use_gpu:
            require_room(settings.workers, settings.threads, use_gpu)
        return settings.workers
    if use_gpu:
        # A worker's share is of one GPU: of 0.4 two fit on each, and five on none of two.
        return max(1, int(ray.cluster_resources().get("GPU", 0)) * int(1 / settings.gpus))
    return max(1, room_for_workers(settings.threads))


# ---- near-duplicates


def find_duplicates(plan: DatasetPlan, out: str, settings: LabelConfig) -> list[Rejection]:
    """The near-duplicates among the pictures of `plan`, in its order, each of an earlier picture.

    They are kept in the version's folder below `out`, so that a job that is run again finds them there.
    `settings` says how many bits of their hashes may differ.
    """
    assert settings.duplicates is not None
    folder = Folder(out) / plan.dataset / plan.version
    if folder.exists(DUPLICATES_NAME):
        entries = pq.read_table(io.BytesIO(folder.read_bytes(DUPLICATES_NAME))).to_pylist()
        return [Rejection(**entry) for entry in entries]
    task = partial(_hash_shard, column=settings.image_column)
    found: dict[str, list[int | None]] = {}
    for result in run_shards(plan.shards, lambda shards: map_shards(shards, task)):
        found[result["name"]] = result["hashes"]
    ids = [sample.sample_id for shard in plan.shards for sample in shard.samples]
    hashes = [value for shard in plan.shards for value in found[shard.name]]
    duplicates = [
        Rejection(ids[position], _reason(ids[first], hashes[position], hashes[first]))
        for position, first in near_duplicates(hashes, settings.duplicates).items()
    ]
    entries = [{"path": entry.path, "reason": entry.reason} for entry in duplicates]
    with folder.writing(DUPLICATES_NAME) as path:
        pq.write_table(pa.Table.from_pylist(entries, _DUPLICATES_SCHEMA), path)
    return duplicates


def _reason(first: str, one: int | None, other: int | None) -> str:
    return f"near-duplicate of {first}: {((one or 0) ^ (other or 0)).bit_count()} of {BITS} bits differ"


def _hash_shard(row: dict[str, Any], column: str | None) -> dict[str, str]:
    """The perceptual hashes of the pictures of the shard in `row`; None where there is no picture."""

    def hashes(plan: ShardPlan) -> dict[str, Any]:
        found = dict.fromkeys(sample.sample_id for sample in plan.samples)
        for sample, fetch in fetching(plan.samples, column):
            try:
                content = fetch()
                image = decode_image(content) if isinstance(content, bytes) else content
            except BadSample:  # the labelling says why
                continue
            found[sample.sample_id] = perceptual_hash(image)
        return {"hashes": list(found.values())}

    return reported(row, hashes)
