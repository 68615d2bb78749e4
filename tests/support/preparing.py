"""A dataset prepared in this process, without Ray: shard by shard, by the function that Ray's tasks call."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets_prep.ingest.run import ingest
from datasets_prep.manifest import PreparedDataset, open_dataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings


def prepared(source: str, raw: Path | str, out: Path, patch: Any, **settings: Any) -> PreparedDataset:
    """Prepare `raw` of the `source` to `out`; `patch` is pytest's monkeypatch."""
    plan = plan_ingest(source, str(raw), IngestSettings(side=32, **settings))
    without_ray(patch)
    for _ in ingest(plan, str(out)):
        pass
    return open_dataset(f"{out}/{plan.dataset}")


def without_ray(patch: Any) -> None:
    """Let `ingest` map shards with Python's `map` instead of Ray Data."""

    class Rows(list[Any]):
        context = SimpleNamespace()

        def map(self, task: Any, **options: Any) -> "Rows":
            call = task(*options["fn_constructor_args"]) if isinstance(task, type) else task
            return Rows(map(call, self))

        def iter_rows(self) -> "Rows":
            return self

    patch.setattr("ray.data.from_items", lambda rows, override_num_blocks: Rows(rows))


def pixels(dataset: PreparedDataset) -> dict[str, dict[str, Any]]:
    """Every row of `dataset` by sample id."""
    import pyarrow.parquet as pq

    shards = [shard.name for shard in dataset.manifest.shards]
    tables = [pq.read_table(f"{dataset.folder.uri}/{name}").to_pylist() for name in shards]
    return {row["sample_id"]: row for rows in tables for row in rows}


def left_out(dataset: PreparedDataset) -> dict[str, str]:
    """Path → reason of what `dataset` was prepared without."""
    return {entry["source_path"]: entry["reason"] for entry in dataset.read_quarantine()}
