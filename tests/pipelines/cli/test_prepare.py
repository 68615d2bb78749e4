from pathlib import Path

import ray

from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing_cache import cache_listing
from tests.support.commands import said

SETTINGS = ("side=64", "samples_per_shard=4", "validation_share=0.25")


def prepare(raw: Path, out: Path, *arguments: str) -> str:
    return said("prepare", "redweb", *SETTINGS, "--raw", raw / "redweb", "--out", out, *arguments)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(raw_folder, tmp_path, monkeypatch):
    monkeypatch.delattr(ray, "init")
    printed = prepare(raw_folder, tmp_path / "out", "--dry-run")
    assert "train: 15 samples in 4 shards\nval: 5 samples in 2 shards\n" in printed
    assert "20 samples would be read: about " in printed
    assert "from 6 samples, 6 of them usable" in printed
    assert not (tmp_path / "out").exists()


def test_a_dry_run_knows_a_finished_dataset(raw_folder, shards_folder):
    assert "finished already: nothing would be done" in prepare(raw_folder, shards_folder, "--dry-run")


def test_a_kept_listing_is_named_with_its_age(raw_folder, tmp_path):
    raw = Folder(raw_folder / "redweb")
    cache_listing(raw.files(), raw, Folder(tmp_path / "redweb"))
    assert "redweb: files as listed 0:00:" in prepare(raw_folder, tmp_path, "--dry-run")
    assert "as listed" not in prepare(raw_folder, tmp_path, "--dry-run", "--refresh")


def test_inspect_writes_a_page_of_all_datasets_of_a_folder(shards_folder, tmp_path):
    said("inspect", shards_folder, "--out", tmp_path, "--samples", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"inspection.html", "redweb.png", "tartanair.png"}
    page = (tmp_path / "inspection.html").read_text()
    assert '<section id="redweb">' in page
    assert '<section id="tartanair">' in page
