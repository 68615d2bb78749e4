from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

from datasets_prep.inspect.units import unit_hint
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing_cache import cache_listing
from pipelines.cli import prepare as cli_prepare
from pipelines.terminal import PlainConsole
from tests.support.commands import dpt, said
from tests.support.preparing import prepared, without_ray

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


def test_a_finished_dataset_needs_nothing_and_no_cluster(raw_folder, shards_folder, monkeypatch):
    monkeypatch.delattr(ray, "init")
    printed = prepare(raw_folder, shards_folder)
    assert "redweb: prepared already, nothing to do\n" in printed
    assert "samples_per_shard" not in printed
    assert "samples_per_shard: 4\n" in prepare(raw_folder, shards_folder, "-v")


def test_generate_shows_how_far_it_is(tmp_path, monkeypatch):
    states: list[tuple[int, int | None, str]] = []
    monkeypatch.setattr(cli_prepare, "show_progress", lambda _, found: states.extend(found))
    said("generate", "diw", "--out", tmp_path, "--scenes", 2)
    assert [(done, total) for done, total, _ in states] == [(0, 2), (1, 2), (2, 2)]


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


@pytest.mark.parametrize(("name", "message"), [
    ("nothing", "no such folder"), ("bad.zip", "not a zip archive, or"), ("raw.rar", "is a file; expec"),
])  # fmt: skip
def test_a_root_that_cannot_be_read_is_one_line_and_no_config(tmp_path, capsys, name, message):
    if name != "nothing":
        (tmp_path / name).write_bytes(b"#")
    assert dpt("prepare", "folder", "--raw", tmp_path / name, "--out", tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def folder_of_a_user(root: Path, scale: float, broken: int) -> None:
    """Photos of a plane of 1,200 to 2,200 stored units; some have no depth, some a damaged one."""
    for name in ("images", "depth"):
        (root / name).mkdir(parents=True)
    (root / "dataset.yaml").write_text(f"name: mine\nquantity: depth\nmetric: true\nscale: {scale}\n")
    plane = np.linspace(1200, 2200, 32 * 40).reshape(32, 40).astype(np.uint16)
    for number in range(4 + 2 * broken):
        Image.new("RGB", (40, 32), (number, 90, 90)).save(root / "images" / f"photo {number}.png")
        if number < 4:
            Image.fromarray(plane).save(root / "depth" / f"photo {number}.png")
        elif number < 4 + broken:
            (root / "depth" / f"photo {number}.png").write_bytes(b"no picture")
    for name in ("images/a.heic", "notes.txt", "x.mat", ".DS_Store"):
        (root / name).write_bytes(b"")


def test_prepare_ends_with_a_table_of_splits_and_reasons(tmp_path, monkeypatch):
    folder_of_a_user(tmp_path / "raw", 0.001, 3)
    without_ray(monkeypatch)
    monkeypatch.setattr("pipelines.cluster.session.connect", lambda: None)
    monkeypatch.setattr(cli_prepare, "console", PlainConsole(width=160))
    settings = ("side=32", "validation_share=0")
    printed = said("prepare", "folder", *settings, "--raw", tmp_path / "raw", "--out", tmp_path / "out")
    assert "folder: 4 train, 10 quarantined" in printed
    table = [line for line in printed.partition("such as")[2].splitlines() if "│" in line]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in table]
    assert [row[1:] for row in rows] == [
        ["4", ""],
        ["3", "images/photo 7.png"],
        ["3", rows[2][2]],
        ["2", "notes.txt"],
        ["1", "images/a.heic"],
        ["1", ".DS_Store"],
    ]
    assert rows[0][0] == "train"
    assert rows[1][0].startswith("left out: no depth/photo 7 that ends in png, npy, ")
    assert rows[2][0].startswith("left out: depth is not a PNG")
    assert printed.rstrip().endswith("_quarantine.parquet")
    assert "hint" not in printed


@pytest.mark.parametrize(
    ("scale", "said_length"), [(1, "1.7 km"), (1e-6, "1.7 mm"), (0.001, None), (0.1, None)]
)
def test_depth_that_cannot_be_in_metres_gets_a_hint(tmp_path, monkeypatch, scale, said_length):
    folder_of_a_user(tmp_path / "raw", scale, 0)
    hint = unit_hint(prepared("folder", tmp_path / "raw", tmp_path / "out", monkeypatch))
    assert (hint is None) == (said_length is None)
    if hint:
        assert hint.startswith(f"median depth is {said_length}: is `scale` of dataset.yaml right?")
