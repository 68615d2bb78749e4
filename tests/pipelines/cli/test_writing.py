"""Every command that writes, where it cannot: one line, no half-written file, and what was there stays."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import StorageFailed
from datasets_prep.synthetic import write_dataset
from dpt import create_model, save_model
from tests.support.commands import dpt
from tests.support.faulty_s3 import FaultyS3, serving

pytestmark = pytest.mark.heavy

OLD = b"what was there"
TRAINING = ("--data", "{shards}", "--name", "x", "model.name=dpt_tiny", "model.pretrained=false", "crop=64")
COMMANDS = {
    "generate": (["generate", "redweb", "--out", "{out}"], ["Imgs/scene_0000.jpg"]),
    "generate HDF5": (["generate", "nyuv2_labelled", "--out", "{out}", "--scenes", "1"], []),
    "prepare": (["prepare", "redweb", "--raw", "{raw}/redweb", "--out", "{out}"], []),
    "inspect": (["inspect", "{shards}/redweb", "--out", "{out}"], ["redweb.png", "inspection.html"]),
    "train": (["train", *TRAINING, "--storage", "{out}"], []),
    "tune": (["tune", "readout", *TRAINING, "--storage", "{out}"], []),
    "predict": (["predict", "{photo}", "--model", "{model}", "--out", "{out}"], ["photo.npy"]),
    "convert": (["convert", "{model}", "{out}/new"], []),
    "convert to Hugging Face": (["convert", "{model}", "{out}/new", "--to", "huggingface"], []),
    "export": (["export", "{model}", "--to", "pt2", "--out", "{out}/new.pt2"], []),
    "report": (["report", "{model}", "--data", "{shards}/redweb", "--out", "{out}"], ["report.html"]),
    "finetune": (
        [
            "finetune",
            "{shards}/tartanair",
            "--model",
            "{model}",
            "--name",
            "x",
            "--storage",
            "{out}",
            "crop=64",
        ],
        [],
    ),
    "stereo": (["stereo", "movies", "--videos", "{movies}/videos", "--out", "{out}"], []),
    "label": (["label", "{photo}", "--model", "{model}", "--name", "x", "--out", "{out}"], []),
    "distill": (
        [
            *("distill", "{photo}", "--model", "{model}", "--data", "{shards}", "--name", "x"),
            *("--out", "{out}", "--storage", "{out}"),
        ],
        [],
    ),
    "evaluate": (
        [
            *("evaluate", "--model", "{model}", "--on", "sintel", "--raw", "{sintel}", "--allow-missing"),
            *("--out", "{out}"),
        ],
        ["per_image.parquet"],
    ),
    "demo": (["demo", "--out", "{out}"], []),
}
LOCAL = ("generate", "generate HDF5", "demo")
REMOTE = sorted(COMMANDS.keys() - {*LOCAL, "export"})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, shards_folder: Path, raw_folder: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("writing")
    photo, model = folder / "photo.png", folder / "model"
    cv2.imwrite(str(photo), np.full((48, 64, 3), 90, np.uint8))
    save_model(create_model("dpt_tiny", image_size=64), model)
    for name in ("movies", "sintel"):
        write_dataset(name, folder / name, scenes=1, height=64, width=96)
    given = {"movies": folder / "movies", "sintel": folder / "sintel", "photo": photo, "model": model}
    return {"shards": shards_folder, "raw": raw_folder, **given}


@pytest.fixture(autouse=True)
def tracked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: str) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyS3]:
    with serving(["bucket"]) as app:
        yield app


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond a few bytes, which the kernel refuses as it refuses a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_refusal(
    command: str, out: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str], *reasons: str
) -> None:
    """The command's exit code, and its one line: what could not be written, why, and what to do."""
    words = [word.format(out=out, **files) for word in COMMANDS[command][0]]
    assert dpt(*words) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dpt: ")]
    assert line.replace("s3://", "").startswith(f"dpt: {out.removeprefix('s3://')}"), line
    assert any(reason in line for reason in reasons), line


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"distill", "export", "label", "report"}))
def test_a_full_disk_costs_no_file_that_was_there_and_leaves_none_half_written(
    command, files, tmp_path, capsys
):
    out = tmp_path / "out"
    for name in COMMANDS[command][1]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(OLD)
    with full_disk():
        check_refusal(command, str(out), files, capsys, "cannot be written: File too large; make room there")
    left = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert left == dict.fromkeys(COMMANDS[command][1], OLD)


@pytest.mark.parametrize("command", ["distill", "export", "label", "report"])
def test_a_disk_without_a_free_byte(command, files, small_disk, capsys):
    small_disk.fill()
    out = small_disk.outside / "out"
    check_refusal(command, str(out), files, capsys, "cannot be written: No space left on device; make room")
    assert not any(path.is_file() for path in out.rglob("*"))


def test_a_full_disk_under_mlflows_database(files, capsys):
    with full_disk():
        assert dpt("report", files["model"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("dpt: MLflow at sqlite:")
    assert "disk I/O error" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_where_a_folder_should_be(command, files, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_bytes(OLD)
    check_refusal(command, str(out), files, capsys, "expected a folder; choose another place")
    assert out.read_bytes() == OLD


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_nobody_may_write_to(command, files, capsys):
    """Not even root may create files there."""
    check_refusal(command, "/sys/dpt", files, capsys, "allow it, or choose another place")


@pytest.mark.parametrize("command", REMOTE)
def test_a_bucket_that_is_not_there(command, files, s3, capsys):
    check_refusal(command, "s3://nosuchbucket/p", files, capsys, "bucket does not exist")


@pytest.mark.parametrize("command", REMOTE)
def test_wrong_keys(command, files, s3, capsys, monkeypatch):
    monkeypatch.setattr(s3, "closed", True)
    check_refusal(command, "s3://bucket/p", files, capsys, "Forbidden", "no such key")


@pytest.mark.parametrize("command", LOCAL)
def test_a_bucket_where_only_a_folder_of_this_machine_will_do(command, files, tmp_path, capsys):
    check_refusal(command, "s3://bucket/p", files, capsys, "expected a folder of this machine")
    assert not (tmp_path / "s3:").exists()


def test_results_are_uploaded(files, s3, tmp_path, capsys):
    for command in ("convert", "convert to Hugging Face", "export", "report", "inspect"):
        out = f"s3://bucket/{command.replace(' ', '_')}"
        assert dpt(*(word.format(out=out, **files) for word in COMMANDS[command][0])) == 0
        assert out in capsys.readouterr().out
    names = {
        "convert/new/": ["config.json", "weights.safetensors"],
        "export/": ["new.pt2"],
        "report/": ["report.html"],
        "inspect/": ["inspection.html", "redweb.png"],
    }
    stored = Folder("s3://bucket").files()
    assert {folder + name for folder, of_it in names.items() for name in of_it} <= stored.keys()
    assert "convert_to_Hugging_Face/new/README.md" in stored
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db"]
    assert dpt("convert", files["model"], "s3://bucket/convert/new") == 1
    assert "s3://bucket/convert/new exists; give a name that does not" in capsys.readouterr().err
    assert dpt("convert", files["model"], "s3://bucket/other", "--push", "me/tiny") == 1
    assert "s3://bucket/other: expected a folder of this machine" in capsys.readouterr().err


def test_an_error_of_what_is_read_is_not_blamed_on_what_is_written(tmp_path):
    def copy() -> None:
        with Folder(tmp_path).writing("out") as path:
            shutil.copyfile(tmp_path / "missing", path)

    with pytest.raises(FileNotFoundError, match="missing"):
        copy()


def test_a_copy_onto_a_full_disk_names_the_new_file(tmp_path):
    (tmp_path / "source").write_bytes(bytes(1000))

    def copy() -> None:
        with Folder(tmp_path).writing("out") as path:
            shutil.copyfile(tmp_path / "source", path)

    with full_disk(), pytest.raises(StorageFailed, match=r"/out cannot be written: File too large"):
        copy()


def test_an_error_of_the_user_passes_as_it_is(tmp_path):
    def fail() -> None:
        with Folder(tmp_path).writing("out"):
            raise UserError("of the user")

    with pytest.raises(UserError, match=r"^of the user$"):
        fail()
