import shutil
from pathlib import Path

import cv2
import pytest

from datasets_prep.inspect import draw_contact_sheet, verify
from datasets_prep.manifest import PreparedDataset, open_dataset


@pytest.fixture
def copied(shards_folder: Path, tmp_path: Path) -> PreparedDataset:
    """A prepared dataset that a test may damage."""
    shutil.copytree(shards_folder / "redweb", tmp_path / "redweb")
    return open_dataset(str(tmp_path / "redweb"))


def test_a_sound_dataset_has_no_problems_and_its_sizes_are_told(copied: PreparedDataset) -> None:
    report = verify(copied)
    assert report.problems == []
    assert "15 train, 5 val; 0 quarantined; affine" in report.dataset
    assert report.rows["height"][0] == "64"
    assert 0 < float(report.rows["valid_share"][2]) <= 1


def test_damage_is_found_whatever_it_is(copied: PreparedDataset) -> None:
    folder = Path(copied.folder.path)
    content = bytearray((folder / "train-00001.parquet").read_bytes())
    content[200] ^= 1
    (folder / "train-00001.parquet").write_bytes(content)
    (folder / "val-00000.parquet").unlink()
    assert verify(copied).problems == [
        "train-00001.parquet differs from its digest in the manifest",
        "val-00000.parquet is missing",
    ]


@pytest.mark.parametrize("samples", [1, 5, 50])
def test_the_contact_sheet_shows_the_asked_number_of_samples_or_all(
    copied: PreparedDataset, tmp_path: Path, samples: int
) -> None:
    path = draw_contact_sheet(copied, tmp_path / "sheets" / "redweb.png", samples)
    picture = cv2.imread(str(path))
    line_height = 192 + 6 + 22
    assert picture.shape[0] == line_height * -(-min(samples, 20) // 2)
    assert picture.std() > 20
