"""Prepared datasets without Ray: the shards of a plan written one after the other in this process.

Shards are a pure function of the plan, whoever writes them (`tests/datasets_prep/ingest/test_run.py` shows
it), so tests that only need prepared data need no Ray.
"""

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from datasets_prep.ingest import run
from datasets_prep.manifest import PreparedDataset
from datasets_prep.plan.shards import IngestPlan, ShardPlan


def prepare(plan: IngestPlan, out: str) -> PreparedDataset:
    """What `ingest_all` writes of `plan` below the folder `out`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_run_round", _write_here)
        return run.ingest_all(plan, out)


def _write_here(plan: IngestPlan, out: str, shards: list[ShardPlan]) -> Iterator[dict[str, Any]]:
    where = {"source": plan.source, "raw": plan.raw, "out": out, "version": plan.version}
    settings = plan.settings.model_dump()
    for shard in shards:
        yield json.loads(
            run.write_shard({"shard": pickle.dumps(shard)}, **where, settings=settings)["result"]
        )
