import pytest

from datasets_prep.manifest import open_datasets
from pipelines.loading.rows import decode_row
from pipelines.loading.shard_reader import ShardReader


def test_a_damaged_row_is_named(shards_folder):
    reader = ShardReader(open_datasets([str(shards_folder)]), "train")
    row = reader.row(0, 0, 0)
    with pytest.raises(ValueError, match=f"sample {row['sample_id']}: .*JPEG|sample {row['sample_id']}"):
        decode_row({**row, "image": row["image"][:50]})
    reader.close()
