"""The plan of `dpt label`: which picture goes into which shard, decided before any is read.

Pictures of one video or Parquet file come one after another, so that few shards read it; within a shard the
order is pseudo-random again. The version is a digest of the teacher, the settings and the listing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from datasets_prep.plan.order import order_of_groups, shuffled_order
from datasets_prep.plan.shards import DatasetPlan, ShardPlan
from datasets_prep.schema import LABELLED_SCHEMA, SCHEMA_VERSION
from datasets_prep.settings import digest_of
from datasets_prep.sources.base import Rejection
from datasets_prep.sources.samples import pack, to_table
from dpt.config import ModelConfig
from pipelines.config import LabelConfig
from pipelines.labelling.labeller import SPLIT, target_kind
from pipelines.labelling.pictures import Pictures


@dataclass(frozen=True, slots=True)
class Teacher:
    """Which model labels.

    Attributes:
        model: its reference; of a registered model its name.
        model_version: of a registered model.
        model_digest: SHA-256 of its weights and config.
    """

    model: str
    model_version: int | None
    model_digest: str


def plan_labels(
    pictures: Pictures, dataset: str, teacher: Teacher, model: ModelConfig, settings: LabelConfig
) -> DatasetPlan:
    """The shards of `pictures`, to be labelled as the `dataset` by a `teacher` with the config `model`.

    `settings` has size and order of the shards.
    """
    table = pictures.samples.table()
    ids, numbers = table.column("sample_id"), table.column("annotation")
    files = (
        name.rpartition("#")[0] if number else name
        for name, number in zip(ids.to_pylist(), numbers.to_pylist(), strict=True)
    )
    order = order_of_groups(files, settings.seed)[: settings.limit]
    shards = []
    for index, start in enumerate(range(0, len(order), settings.samples_per_shard)):
        part = table.take(pa.array(order[start : start + settings.samples_per_shard]))
        part = part.take(pa.array(shuffled_order(part.column("sample_id"), settings.seed)))
        shards.append(ShardPlan(f"{SPLIT}-{index:05d}.parquet", SPLIT, len(part), pack(part)))
    decisive = [SCHEMA_VERSION, "label", dataset, teacher.model_digest, settings.decisive, pictures.digest]
    provenance = {name: getattr(teacher, name) for name in Teacher.__slots__}
    return DatasetPlan(
        dataset=dataset,
        target_kind=target_kind(model),
        recorded=settings.decisive | provenance,
        version=digest_of(decisive),
        shards=shards,
        rejected=pictures.rejected,
        schema=LABELLED_SCHEMA,
    )


def without(plan: DatasetPlan, duplicates: list[Rejection]) -> DatasetPlan:
    """The `plan` without the pictures that `duplicates` reject; its shards may be smaller then."""
    left_out = {entry.path for entry in duplicates}
    shards = []
    for shard in plan.shards:
        kept = [sample for sample in shard.samples if sample.sample_id not in left_out]
        if kept:
            shards.append(ShardPlan(shard.name, shard.split, len(kept), pack(to_table(kept))))
    rejected = plan.rejected + duplicates
    return DatasetPlan(**{**vars(plan), "shards": shards, "rejected": rejected})
