"""A version's folder opens as a whole in other people's readers, whichever of them are installed."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.dataset
import pytest
import yaml

from datasets_prep.ingest.hugging_face import CARD_NAME
from datasets_prep.manifest import PreparedDataset, open_dataset


@pytest.fixture
def prepared(shards_folder: Path) -> PreparedDataset:
    return open_dataset(str(shards_folder / "redweb"))


def samples(prepared: PreparedDataset) -> dict[str, int]:
    assert prepared.folder.exists("_quarantine.parquet"), "what must be passed over"
    return prepared.manifest.samples


def test_pyarrow(prepared):
    table = pyarrow.dataset.dataset(prepared.folder.path).to_table(columns=["split"])
    assert dict(zip(*np.unique(table["split"], return_counts=True), strict=True)) == samples(prepared)


@pytest.mark.ray
def test_ray_data(prepared, ray_session):
    import ray

    counts = ray.data.read_parquet(prepared.folder.path).select_columns(["split"]).to_pandas()
    assert dict(counts["split"].value_counts()) == samples(prepared)


def test_duckdb(prepared):
    duckdb = pytest.importorskip("duckdb")
    query = f"select split, count(*) from '{prepared.folder.path}/[!_]*.parquet' group by all"
    assert dict(duckdb.sql(query).fetchall()) == samples(prepared)


def test_polars(prepared):
    polars = pytest.importorskip("polars")
    table = polars.scan_parquet(prepared.folder.path, hidden_file_prefix=["_", "."]).collect()
    assert dict(table["split"].value_counts().rows()) == samples(prepared)


def test_hugging_face(prepared, tmp_path):
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(prepared.folder.path, cache_dir=str(tmp_path))
    named = {"val": "validation"}
    assert {name: len(rows) for name, rows in found.items()} == {
        named.get(split, split): count for split, count in samples(prepared).items()
    }
    row = found["train"][0]
    assert row["image"].size == (row["width"], row["height"])


def test_the_card_of_hugging_face_has_every_column_and_calls_pictures_so(prepared):
    """Without the package: what its features must be, by its documentation of `dataset_info`."""
    card = yaml.safe_load(prepared.folder.read_text(CARD_NAME))
    features = {one["name"]: one for one in card["dataset_info"]["features"]}
    table = pyarrow.dataset.dataset(prepared.folder.path).to_table()
    assert list(features) == table.column_names
    assert {name for name, one in features.items() if one.get("dtype") == "image"} == {"image", "label"}
    assert PIL.Image.open(io.BytesIO(table["image"][0].as_py())).width == table["width"][0].as_py()
    names = {pa.float32(): "float32", pa.float64(): "float64"}
    for field in table.schema:
        if field.name not in ("image", "label", "point_pair"):
            assert features[field.name]["dtype"] == names.get(field.type, str(field.type))
    assert [one["dtype"] for one in features["point_pair"]["struct"]] == [*["int32"] * 4, "bool"]
