from pathlib import Path

import pytest

from datasets_prep.ingest.forecast import forecast
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from tests.support.shards import prepare

SETTINGS = IngestSettings(side=64, samples_per_shard=4, validation_share=0.25)


@pytest.mark.heavy
def test_nothing_is_written_and_the_size_is_about_right(raw_folder, shards_folder, tmp_path):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)
    expected = forecast(plan, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert (expected.finished_shards, expected.missing_samples) == (0, 20)
    assert (expected.tried, expected.usable) == (6, 6)
    paths = (shards_folder / "redweb" / plan.version).glob("*-*.parquet")
    written = sum(path.stat().st_size for path in paths)
    assert expected.bytes == pytest.approx(written, rel=0.7)  # footers weigh much in so small shards
    assert expected.core_seconds > 0


def test_finished_shards_are_not_counted_again(raw_folder, tmp_path):
    plan = plan_ingest("redweb", str(raw_folder / "redweb"), SETTINGS)
    prepared = prepare(plan, str(tmp_path))
    for name in ("_manifest.json", "train-00001.parquet"):
        Path(prepared.folder.path, name).unlink()
    expected = forecast(plan, str(tmp_path))
    assert (expected.finished_shards, expected.missing_samples) == (len(plan.shards) - 1, 4)


def test_samples_that_are_all_bad_have_no_known_size(raw_folder, tmp_path):
    settings = SETTINGS.model_copy(update={"min_valid_share": 1.0, "min_dynamic_range": 1e9})
    expected = forecast(plan_ingest("redweb", str(raw_folder / "redweb"), settings), str(tmp_path))
    assert (expected.usable, expected.bytes) == (0, None)
