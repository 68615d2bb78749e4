import pickle
import subprocess
import sys

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import DigestingFolder, Folder
from datasets_prep.storage.retries import StorageFailed
from datasets_prep.storage.writing import PARTIAL_MARK


def test_files_are_listed_with_sizes_relative_and_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("22")
    (tmp_path / "a.txt").write_text("1")
    assert Folder(tmp_path).files() == {"a.txt": 1, "b/two.txt": 2}


def test_a_remote_file_system_works_the_same():
    folder = Folder("memory://bucket/data")
    folder.write_text("inner/a.txt", "hello")
    assert Folder("memory://bucket/data").files() == {"inner/a.txt": 5}
    assert (folder.read_text("inner/a.txt"), folder.uri) == ("hello", "memory:///bucket/data")
    assert (folder / "inner").children() == ["a.txt"]


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", ".."])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, path):
    with pytest.raises(ValueError, match="outside"):
        Folder(tmp_path).read_bytes(path)


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    folder = Folder(tmp_path)
    with folder.writing("x/data.bin") as path:
        path.write_bytes(b"half")
        assert not folder.exists("x/data.bin")
        path.write_bytes(b"whole")
    assert folder.read_bytes("x/data.bin") == b"whole"
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["data.bin"]


@pytest.mark.parametrize("uri", ["{tmp}", "memory://crash"])
def test_nothing_appears_when_writing_fails(tmp_path, uri):
    folder = Folder(uri.format(tmp=tmp_path))

    def write_half() -> None:
        with folder.writing("data.bin") as path:
            path.write_bytes(b"half")
            raise RuntimeError("out of disk")

    with pytest.raises(RuntimeError, match="out of disk"):
        write_half()
    assert folder.files() == {}


def test_an_old_file_survives_a_failed_rewrite(tmp_path):
    folder = Folder(tmp_path)
    folder.write_text("data.txt", "old")

    def fail() -> None:
        with folder.writing("data.txt") as path:
            path.write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert folder.read_text("data.txt") == "old"


def test_a_partial_file_that_somebody_is_writing_stays(tmp_path):
    """Two jobs may prepare one dataset at the same time, each cleaning up when it starts."""
    folder = Folder(tmp_path)
    with folder.writing("train-00000.parquet") as path:
        path.write_bytes(b"whole")
        assert folder.remove_partial_files() == 0
        assert path.exists()
    assert folder.read_bytes("train-00000.parquet") == b"whole"
    assert list(folder.files()) == ["train-00000.parquet"]


def test_a_partial_file_is_removed_once_its_writer_was_killed(tmp_path):
    script = (
        "import sys, time; from datasets_prep.storage.folder import Folder\n"
        "with Folder(sys.argv[1]).writing('data.bin') as path:\n"
        "    path.write_bytes(b'half'); print('writing', flush=True); time.sleep(600)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        folder = Folder(tmp_path)
        assert folder.remove_partial_files() == 0
    finally:
        writer.kill()
        writer.wait()
    assert folder.remove_partial_files() == 1
    assert list(folder.files()) == []


def test_a_uri_that_nothing_reads_is_refused():
    with pytest.raises(UserError, match="nosuch://bucket/x: Protocol not known"):
        Folder("nosuch://bucket/x")


def test_remote_storage_that_lets_nobody_in_is_no_missing_file(monkeypatch):
    folder = Folder("memory://closed")
    folder.write_text("a.txt", "hello")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("the token has expired")

    monkeypatch.setattr(type(folder.fs), "cat_file", refuse)
    with pytest.raises(StorageFailed, match=r"/closed/a.txt cannot be read: PermissionError: the token"):
        folder.read_bytes("a.txt")


def test_partial_files_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / f"train-00000.parquet{PARTIAL_MARK}abc").write_text("half")
    (tmp_path / "train-00001.parquet").write_text("whole")
    folder = Folder(tmp_path)
    assert folder.remove_partial_files() == 1
    assert list(folder.files()) == ["train-00001.parquet"]


def test_the_digest_depends_on_content_and_order_and_starts_again(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"3")
    folder = DigestingFolder(tmp_path)

    def digest_of(*names: str) -> str:
        for name in names:
            folder.read_bytes(name)
        return folder.take_digest()

    first = digest_of("a", "b")
    assert first == digest_of("a", "b")
    assert first != digest_of("b", "a")
    # 12|3 and 1|23 must differ although the bytes in a row are the same.
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"23")
    assert first != digest_of("a", "b")


def test_a_folder_travels_to_other_processes(tmp_path):
    folder = Folder(tmp_path)
    assert pickle.loads(pickle.dumps(folder)).uri == str(tmp_path)


@pytest.mark.parametrize(("uri", "extra"), [
    ("s3://bucket/raw", "s3"), ("gs://bucket/raw", "gcs"), ("gcs://bucket/raw", "gcs"),
    ("az://container/raw", "azure"), ("abfss://container@account.dfs.core.windows.net/raw", "azure"),
])  # fmt: skip
def test_a_missing_client_library_is_named_by_the_extra_that_has_it(uri, extra, monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ImportError("no such module")

    monkeypatch.setattr("fsspec.core.get_filesystem_class", missing)
    with pytest.raises(UserError, match=rf"^{uri}: .*; pip install 'dpt-on-ray\[{extra}\]'$"):
        Folder(uri)


@pytest.mark.parametrize("protocol", ["abfs", "abfss"])
def test_an_address_of_azure_keeps_its_account(protocol, monkeypatch):
    """In adlfs, paths begin with the container, and the account is an option."""
    memory = MemoryFileSystem()
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda *_, **__: (memory, "container/raw/redweb"))
    uri = f"{protocol}://container@account.dfs.core.windows.net/raw/redweb"
    assert Folder(uri).uri == uri
    assert (Folder(uri) / "a/b.png").uri == f"{uri}/a/b.png"
    assert (Folder(uri) / "a/b.png").path == "container/raw/redweb/a/b.png"
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda *_, **__: (memory, "container"))
    assert Folder(f"{protocol}://container@account.dfs.core.windows.net").uri.endswith("windows.net")
