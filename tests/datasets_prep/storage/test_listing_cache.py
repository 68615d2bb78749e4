import random
from pathlib import Path

import pytest

from datasets_prep.errors import Note
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing_cache import LISTING_NAME, cache_listing, cached_listing


@pytest.fixture
def raw(tmp_path: Path) -> Folder:
    for name in ("a.txt", "b/c.txt"):
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return Folder(tmp_path / "raw")


def test_a_kept_listing_is_used_until_it_is_refreshed(raw, tmp_path):
    out = Folder(tmp_path / "out")
    first = cached_listing(raw, out, refresh=False)
    assert first.listed_at is None
    cache_listing(first.files, raw, out)
    (tmp_path / "raw" / "new.txt").write_text("new")
    again = Folder(tmp_path / "raw")
    kept = cached_listing(again, out, refresh=False)
    assert kept.listed_at is not None
    assert dict(kept.files) == {"a.txt": 5, "b/c.txt": 7}
    fresh = cached_listing(again, out, refresh=True)
    assert (fresh.listed_at, len(fresh.files)) == (None, 3)


def test_the_listing_of_another_folder_or_a_damaged_one_is_not_used(raw, tmp_path):
    out = Folder(tmp_path / "out")
    cache_listing(raw.files(), raw, out)
    other = tmp_path / "other"
    other.mkdir()
    assert cached_listing(Folder(other), out, refresh=False).listed_at is None
    (tmp_path / "out" / LISTING_NAME).write_bytes(b"PAR1 and no more")
    with pytest.warns(Note, match=r"listing\.parquet is damaged \(.*\): listing again"):
        assert cached_listing(raw, out, refresh=False).listed_at is None


@pytest.mark.filterwarnings("ignore::datasets_prep.errors.Note")
def test_no_flipped_bit_of_a_kept_listing_is_believed(raw, tmp_path):
    out, generator = Folder(tmp_path / "out"), random.Random(0)
    cache_listing(raw.files(), raw, out)
    path = tmp_path / "out" / LISTING_NAME
    content = path.read_bytes()
    for _ in range(400):
        flipped = bytearray(content)
        flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        assert dict(cached_listing(raw, out, refresh=False).files) == {"a.txt": 5, "b/c.txt": 7}


def test_its_bytes_depend_on_the_files_alone(raw, tmp_path):
    for out in ("one", "two"):
        cache_listing(Folder(raw.path).files(), raw, Folder(tmp_path / out))
    assert (tmp_path / "one" / LISTING_NAME).read_bytes() == (tmp_path / "two" / LISTING_NAME).read_bytes()
