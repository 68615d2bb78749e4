"""Prepared datasets without Ray: the shards of a plan written one after the other in this process.

Shards are a pure function of the plan, whoever writes them (`tests/datasets_prep/ingest/test_run.py` shows
it), so tests that only need prepared data need no Ray.
"""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep.ingest import run
from datasets_prep.manifest import PreparedDataset
from datasets_prep.plan.shards import IngestPlan, ShardPlan
from datasets_prep.storage.sealed_parquet import FOOTER_SEAL, seal_footer


def prepare(plan: IngestPlan, out: str) -> PreparedDataset:
    """What `ingest_all` writes of `plan` below the folder `out`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_run_round", _write_here)
        return run.ingest_all(plan, out)


def write_sealed(table: pa.Table, path: Path) -> None:
    """Write `table` to `path` with the digests that readers of shards want."""
    metadata = {**(table.schema.metadata or {}), **FOOTER_SEAL}
    pq.write_table(table.replace_schema_metadata(metadata), path, write_page_checksum=True)
    seal_footer(path)


def _write_here(plan: IngestPlan, out: str, shards: list[ShardPlan]) -> Iterator[dict[str, Any]]:
    where = {"source": plan.source, "raw": plan.raw, "out": out, "version": plan.version}
    settings = plan.settings.model_dump()
    for shard in shards:
        yield json.loads(
            run.write_shard({"shard": pickle.dumps(shard)}, **where, settings=settings)["result"]
        )
