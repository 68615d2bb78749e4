import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep.ingest.row import make_row
from datasets_prep.inspect.page import write_page
from datasets_prep.inspect.row_pictures import pictures_of_row
from datasets_prep.inspect.verify import draw_contact_sheet, random_rows, verify
from datasets_prep.manifest import PreparedDataset, open_dataset
from datasets_prep.plan.shards import open_source, plan_ingest
from datasets_prep.schema import SCHEMA
from datasets_prep.settings import IngestSettings
from datasets_prep.storage.folder import DigestingFolder
from datasets_prep.synthetic import write_dataset


@pytest.fixture
def copied(shards_folder: Path, tmp_path: Path) -> PreparedDataset:
    """A prepared dataset that a test may damage."""
    shutil.copytree(shards_folder / "redweb", tmp_path / "redweb")
    return open_dataset(str(tmp_path / "redweb"))


def test_a_sound_dataset_has_no_problems_and_its_sizes_are_told(copied):
    report = verify(copied)
    assert report.problems == []
    assert "15 train, 5 val; 0 quarantined; affine" in report.dataset
    assert report.rows["height"][0] == "64"
    assert 0 < float(report.rows["valid_share"][2]) <= 1


def test_damage_is_found_whatever_it_is(copied):
    folder = Path(copied.folder.path)
    content = bytearray((folder / "train-00001.parquet").read_bytes())
    content[200] ^= 1
    (folder / "train-00001.parquet").write_bytes(content)
    (folder / "val-00000.parquet").unlink()
    assert verify(copied).problems == [
        "train-00001.parquet differs from its digest in the manifest",
        "val-00000.parquet is missing",
    ]


def test_only_sound_shards_are_drawn_from(copied):
    folder = Path(copied.folder.path)
    for shard in copied.manifest.shards[1:]:
        (folder / shard.name).write_bytes(b"PAR1 and no more")
    report = verify(copied)
    assert len(report.problems) == len(copied.manifest.shards) - 1
    rows = random_rows(report.sound, 50)
    assert len(rows) == copied.manifest.shards[0].rows
    (folder / copied.manifest.shards[0].name).unlink()
    assert random_rows(verify(copied).sound, 50) == []


def with_quarantine(prepared: PreparedDataset, entries: list[dict[str, str]]) -> PreparedDataset:
    """The dataset as if these samples had been left out of it."""
    path = Path(prepared.folder.path) / "quarantine.parquet"
    pq.write_table(pa.Table.from_pylist(entries), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(prepared, manifest=replace(prepared.manifest, quarantine_sha256=digest))


def test_reasons_that_differ_in_numbers_are_told_once(copied):
    reasons = {"a": "image truncated at 12 bytes", "b": "no map", "c": "image truncated at 7 bytes"}
    entries = [{"sample_id": n, "source_path": f"{n}.jpg", "reason": r} for n, r in reasons.items()]
    copied = with_quarantine(copied, entries)
    found = [(entry.count, entry.reason, entry.example) for entry in verify(copied).quarantine]
    assert found == [(2, "image truncated at 12 bytes", "a.jpg"), (1, "no map", "b.jpg")]


def test_the_page_shows_samples_statistics_reasons_and_problems(copied, tmp_path):
    hostile = {"sample_id": "x", "source_path": "<script>.jpg", "reason": "no <b>map</b>"}
    copied = with_quarantine(copied, [hostile])
    (Path(copied.folder.path) / "val-00000.parquet").unlink()
    report = verify(copied)
    rows = random_rows(report.sound, 5)
    text = write_page(tmp_path / "page" / "inspection.html", [(report, rows)]).read_text()
    assert len(re.findall(r'src="data:image/jpeg;base64,/9j/', text)) == 3 * 5
    assert all(row["sample_id"] in text for row in rows)
    assert "inverse depth, median" in text
    assert "white where there is, grey for sky" in text
    assert not re.search(r">[a-z]+(_[a-z]+)+<", text), "no names of columns of the shards"
    assert "val-00000.parquet is missing" in text
    assert "no &lt;b&gt;map&lt;/b&gt;" in text
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=.?(?:http|//)", text), "the page must need nothing else"
    ElementTree.fromstring(text.removeprefix("<!doctype html>"))


@pytest.mark.parametrize(
    ("name", "truth"),
    [("eth3d", "depth"), ("diw", "point_pair"), ("ade20k", "label"), ("redweb", "inverse_depth")],
)
def test_every_kind_of_ground_truth_is_drawn(tmp_path, name, truth):
    write_dataset(name, tmp_path / "raw", scenes=2, height=96, width=128)
    settings = IngestSettings(side=64)
    shard = plan_ingest(name, str(tmp_path / "raw"), settings).shards[0]
    source, root = open_source(name, str(tmp_path / "raw"), settings), DigestingFolder(tmp_path / "raw")
    row = dict.fromkeys(SCHEMA.names) | make_row(source, root, shard.samples[0], shard.split, settings)
    assert row[truth] is not None
    image, target, validity = pictures_of_row(row)
    assert image.shape == target.shape == validity.shape
    assert target.std() > 5
    assert validity.max() == 255


@pytest.mark.parametrize("samples", [1, 5, 50])
def test_the_contact_sheet_shows_the_asked_number_of_samples_or_all(copied, tmp_path, samples):
    path = draw_contact_sheet(copied, tmp_path / "sheets" / "redweb.png", samples)
    picture = cv2.imread(str(path))
    line_height = 192 + 6 + 22
    assert picture.shape[0] == line_height * -(-min(samples, 20) // 2)
    assert picture.std() > 20
