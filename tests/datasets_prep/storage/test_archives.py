"""Archives read in place: every kind, wherever it lies, nested, damaged, hostile."""

import io
import itertools
import tarfile
import zipfile

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from datasets_prep.errors import NotFound, UserError, WrongLayout
from datasets_prep.plan.shards import dataset_root, plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.storage import archives, retries
from datasets_prep.storage.folder import Folder, existing_folder
from datasets_prep.storage.retries import StorageFailed
from datasets_prep.synthetic import write_dataset
from pipelines import finetune
from tests.support.faulty_s3 import serving
from tests.support.preparing import left_out, pixels, prepared, without_ray
from tests.support.raw_files import put

KINDS = ("zip", "ZIP", "tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz")
MODES = {
    "tar": "w",
    "tar.gz": "w:gz",
    "tgz": "w:gz",
    "tar.bz2": "w:bz2",
    "tbz2": "w:bz2",
    "tar.xz": "w:xz",
    "txz": "w:xz",
}


def sample_files() -> dict[str, bytes]:
    files = {"dataset.yaml": b"name: mine\nquantity: depth\nmetric: true\nscale: 0.5\n"}
    for number in range(3):
        depth = np.random.default_rng(number).uniform(1, 9, (32, 40)).astype(np.float32)
        image, stored = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (40, 32), (number, 100, 200)).save(image, "PNG")
        np.save(stored, depth)
        files[f"images/raum 1/{number}.png"] = image.getvalue()
        files[f"depth/raum 1/{number}.npy"] = stored.getvalue()
    return files


FILES = sample_files()


def archive(kind: str, files: dict[str, bytes], prefix: str = "") -> bytes:
    stream = io.BytesIO()
    if kind.lower() == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(prefix + name, data)
    else:
        with tarfile.open(fileobj=stream, mode=MODES[kind]) as file:
            for name, data in files.items():
                entry = tarfile.TarInfo(prefix + name)
                entry.size = len(data)
                file.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def wrote(tmp_path, kind: str, prefix: str = "", files: dict[str, bytes] | None = None) -> str:
    path = tmp_path / f"my [raw] #1.{kind}"
    path.write_bytes(archive(kind, files or FILES, prefix))
    return str(path)


@pytest.mark.parametrize("prefix", ["", "./", "robot/", "./data/robot/"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_planned_as_its_folder(tmp_path, kind, prefix):
    folder = plan_ingest("folder", put(tmp_path / "raw", FILES).uri, IngestSettings())
    plan = plan_ingest("folder", wrote(tmp_path, kind, prefix), IngestSettings())
    assert (plan.samples, plan.version) == (3, folder.version)
    again = Folder(plan.raw)  # as workers open it
    assert again.uri == plan.raw
    assert {path: again.read_bytes(path) for path in again.files()} == FILES
    assert (again.exists("dataset.yaml"), again.exists("images"), again.exists("nothing")) == (
        True,
        True,
        False,
    )
    with pytest.raises(FileNotFoundError):
        again.read_bytes("images/nothing.png")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_rows_of_an_archive_are_those_of_its_folder(tmp_path, monkeypatch, kind):
    raw = put(tmp_path / "raw", FILES).uri
    expected = pixels(prepared("folder", raw, tmp_path / "a", monkeypatch))
    assert (
        pixels(prepared("folder", wrote(tmp_path, kind, "robot/"), tmp_path / "b", monkeypatch)) == expected
    )


def test_mac_archives_hold_a_second_folder_that_is_none(tmp_path):
    files = {f"robot/{name}": data for name, data in FILES.items()}
    files |= dict.fromkeys(("__MACOSX/robot/._dataset.yaml", "__MACOSX/robot/images/raum 1/._0.png"), b"\0")
    assert dataset_root("folder", wrote(tmp_path, "zip", files=files)).path == "robot"


def test_a_published_dataset_in_an_archive(tmp_path):
    write_dataset("redweb", tmp_path / "ReDWeb_V1", 2, height=32, width=48)
    files = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    plan = plan_ingest("redweb", wrote(tmp_path, "zip", files=files), IngestSettings())
    assert plan.samples == 2


@pytest.mark.heavy
def test_archives_in_memory_and_on_s3():
    with serving(["archives"]):
        for place, kind in itertools.product(
            ("memory://archives", "s3://archives/deep er"), ("zip", "tar.gz")
        ):
            uri = f"{place}/a.{kind}"
            with fsspec.open(uri, "wb") as file:
                file.write(archive(kind, FILES, "robot/"))
            root = dataset_root("folder", uri)
            assert root.uri.startswith(f"{kind[:3]}://robot::{uri.partition('://')[0]}://")
            assert {path: Folder(root.uri).read_bytes(path) for path in root.files()} == FILES


def test_storage_that_fails_below_an_archive_spoils_no_sample(tmp_path, monkeypatch):
    with fsspec.open("memory://raw/failing.zip", "wb") as file:
        file.write(archive("zip", {**FILES, "padding": np.random.default_rng(0).bytes(2**22)}))
    root = Folder(dataset_root("folder", "memory://raw/failing.zip").uri)
    monkeypatch.setattr(retries, "PAUSES", ())

    def fail(*arguments, **options):
        raise ConnectionResetError("by peer")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(
        StorageFailed, match=r"failing\.zip cannot be read, tried 1 times: ConnectionResetError"
    ):
        root.read_bytes("padding")


def test_an_archive_that_was_replaced_is_opened_again(tmp_path):
    path = wrote(tmp_path, "zip")
    assert len(existing_folder(path).files()) == len(FILES)
    wrote(tmp_path, "zip", files={"one": b"1"})
    assert list(existing_folder(path).files()) == ["one"]


# ---- damage


def test_one_damaged_file_is_one_sample_less(tmp_path, monkeypatch):
    data = bytearray(archive("zip", FILES))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as file:
        entry = file.getinfo("depth/raum 1/1.npy")
    data[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0xFF
    (tmp_path / "raw.zip").write_bytes(data)
    dataset = prepared("folder", tmp_path / "raw.zip", tmp_path / "out", monkeypatch)
    assert set(pixels(dataset)) == {"raum 1/0", "raum 1/2"}
    reasons = left_out(dataset)
    assert set(reasons) == {"images/raum 1/1.png"}
    assert reasons["images/raum 1/1.png"].startswith("depth/raum 1/1.npy in the archive cannot be read: ")


def test_an_encrypted_archive_says_so(tmp_path):
    data = bytearray(archive("zip", FILES))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := data.find(mark, position + 1)) >= 0:
            data[position + flags] |= 1
    (tmp_path / "raw.zip").write_bytes(data)
    with pytest.raises(WrongLayout, match=r"dataset\.yaml in the archive cannot be read: .*encrypted"):
        plan_ingest("folder", str(tmp_path / "raw.zip"), IngestSettings())


def broken_tar(damage: str) -> bytes:
    data = bytearray(archive("tar", FILES))
    if damage == "cut off":
        return bytes(data[: len(data) // 2])
    if damage == "cut off between files":
        with tarfile.open(fileobj=io.BytesIO(bytes(data))) as file:
            return bytes(data[: file.getmembers()[3].offset])
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as file:
        data[file.getmembers()[3].offset + 150] ^= 0xFF  # in the header's checksum
    return bytes(data)


@pytest.mark.parametrize("damage", ["cut off", "cut off between files", "header"])
def test_a_broken_tar_is_refused_not_read_in_part(tmp_path, damage):
    (tmp_path / "raw.tar").write_bytes(broken_tar(damage))
    with pytest.raises(UserError, match=r"raw\.tar is not a tar archive, or damaged: ") as caught:
        plan_ingest("folder", str(tmp_path / "raw.tar"), IngestSettings())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"<html>", None])
def test_what_is_no_archive_is_one_line(tmp_path, kind, data):
    path = tmp_path / f"raw.{kind}"
    path.write_bytes(archive(kind, FILES)[:200] if data is None else data)
    with pytest.raises(UserError, match=rf"raw\.{kind} is not a (zip|tar) archive, or damaged: ") as caught:
        existing_folder(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_empty_archive_is_one_line(tmp_path, kind):
    path = tmp_path / f"raw.{kind}"
    path.write_bytes(archive(kind, {}))
    with pytest.raises(UserError, match=rf"raw\.{kind} is an archive without files"):
        existing_folder(str(path))


@pytest.mark.parametrize("name", ["images/../../../x.png", "/etc/x", "../x", "images//a.png"])
def test_paths_that_lead_out_of_the_archive_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"the archive holds .*, which is not a path inside it"):
        existing_folder(wrote(tmp_path, "zip", files={**FILES, name: b"1"})).files()


def test_a_large_compressed_tar_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_COMPRESSED_TAR_BYTES", 100)
    with pytest.raises(UserError, match=r"#1\.tgz has 0 MiB; .*unpack it, or make it a \.tar or \.zip$"):
        existing_folder(wrote(tmp_path, "tgz"))


def test_other_files_and_missing_ones(tmp_path):
    (tmp_path / "raw.rar").write_bytes(b"Rar!")
    with pytest.raises(
        UserError, match=r"raw\.rar is a file; expected a folder, or an archive: \.zip, \.tar"
    ):
        existing_folder(str(tmp_path / "raw.rar"))
    with pytest.raises(NotFound, match=r"no such folder: .*raw\.zip"):
        existing_folder(str(tmp_path / "raw.zip"))
    with pytest.raises(NotFound, match=r"no such archive: .*raw\.zip"):
        existing_folder(f"zip://robot::{tmp_path}/raw.zip")
    (tmp_path / "folder.zip").mkdir()
    assert existing_folder(str(tmp_path / "folder.zip")).is_local


def test_an_archive_without_the_dataset_says_what_it_holds(tmp_path):
    path = wrote(tmp_path, "zip", files={"deep/er/notes.txt": b"1"})
    with pytest.raises(WrongLayout, match=r"^no file zip://::.*#1\.zip/dataset\.yaml: it says what"):
        plan_ingest("folder", path, IngestSettings())


def test_an_archive_with_more_besides_the_dataset_says_where_it_is(tmp_path):
    files = {"README": b""} | {f"a b/{name}": data for name, data in FILES.items()}
    path = wrote(tmp_path, "zip", files=files)
    with pytest.raises(WrongLayout, match=r"; the archive has one in a folder: give zip://a b::") as caught:
        plan_ingest("folder", path, IngestSettings())
    place = str(caught.value).rpartition("give ")[2]
    assert plan_ingest("folder", place, IngestSettings()).samples == 3


def test_fine_tuning_prepares_an_archive(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    monkeypatch.setattr(finetune, "connect", lambda: None)
    settings = IngestSettings(side=32)
    dataset = finetune.training_data(wrote(tmp_path, "tar", "x/"), [], str(tmp_path / "out"), settings, print)
    assert (dataset.name, sum(dataset.manifest.samples.values())) == ("mine", 3)
