"""HDF5 files: what is read, what is refused, and what is left open at the end."""

import io
import subprocess
import sys

import h5py
import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats.hdf5 import decode_hdf5_array, encode_hdf5_arrays, open_hdf5
from datasets_prep.storage.folder import Folder


def hdf5(build) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        build(file)
    return stream.getvalue()


def dataset(name="depth", **options):
    return lambda file: file.create_dataset(name, **options)


def sized(*shape, **options):
    return dataset(shape=shape, dtype="<f4", **options)


@pytest.mark.parametrize(("build", "reason"), [
    (dataset("other", data=np.ones((2, 2))), r"no dataset /depth.*other"),
    (dataset(data=np.ones((2, 2, 3))), "is not an array of 2 dimensions"),
    (dataset(data=[[b"a", b"b"]]), "is not an array of 2 dimensions"),
    (lambda file: file.create_group("depth"), "is not an array of 2 dimensions"),
    (lambda file: file.__setitem__("depth", h5py.ExternalLink("/etc/passwd", "/depth")), "no dataset"),
    (lambda file: file.__setitem__("depth", h5py.SoftLink("/other")), "no dataset"),
    (sized(1, 4, external=[("/etc/passwd", 0, 16)], chunks=None), "lie in other files"),
    (sized(200_000, 200_000, chunks=(64, 64)), r"declares \(200000, 200000\) in pieces of \(64, 64\)"),
    (sized(4, 2**40, maxshape=(None, None)), r"declares \(4, 1099511627776\)"),
    (sized(0, 5), r"declares \(0, 5\)"),
    (sized(1000, 1000, chunks=(1, 1)), r"declares \(1000, 1000\) in pieces of \(1, 1\)"),
    (sized(4, 4, maxshape=(None, None), chunks=(2**14,) * 2),
     r"declares \(4, 4\) in pieces of \(16384, 16384\)"),
])  # fmt: skip
def test_other_hdf5_files_are_refused_with_their_reason(build, reason):
    with pytest.raises(BadSample, match=f"^depth.*{reason}"):
        decode_hdf5_array(hdf5(build), "depth", "depth", 2)


def test_virtual_dataset_is_refused():
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "depth", (2, 2))
    data = hdf5(lambda file: file.create_virtual_dataset("depth", layout))
    with pytest.raises(BadSample, match="lie in other files"):
        decode_hdf5_array(data, "depth", "depth", 2)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_hdf5_is_refused(share):
    values = np.random.default_rng(0).random((200, 300)).astype(np.float32)
    data = encode_hdf5_arrays({"depth": values})
    np.testing.assert_array_equal(decode_hdf5_array(data, "depth", "depth", 2), values)
    with pytest.raises(BadSample, match=r"^depth HDF5 damaged"):
        decode_hdf5_array(data[: int(share * len(data))], "depth", "depth", 2)


def test_hdf5_is_written_the_same_every_time():
    values = np.random.default_rng(0).random((70, 90)).astype(np.float32)
    assert encode_hdf5_arrays({"depth": values}) == encode_hdf5_arrays({"depth": values})


@pytest.mark.heavy
def test_one_entry_of_a_large_file_is_read_and_a_costly_one_refused(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    content = {"good": values, "many": np.zeros((1, 400, 400), np.uint8)}
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file["good"] = content["good"]
        file.create_dataset("many", data=content["many"], chunks=(1, 1, 1))
    large = open_hdf5(Folder(tmp_path), "large.h5")
    assert large.shape("good", 3) == (2, 3, 4)
    np.testing.assert_array_equal(large.item("good", 3, 1), values[1])
    with pytest.raises(BadSample, match=r"/many declares \(1, 400, 400\) in pieces of \(1, 1, 1\)"):
        large.item("many", 3, 0)


def test_a_process_that_leaves_a_file_open_ends_well(tmp_path):
    (tmp_path / "large.h5").write_bytes(encode_hdf5_arrays({"depth": np.ones((2, 3, 4), np.float32)}))
    program = (
        "import sys; from datasets_prep.formats.hdf5 import open_hdf5; "
        "from datasets_prep.storage.folder import Folder; "
        "print(open_hdf5(Folder(sys.argv[1]), 'large.h5').shape('depth', 3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "(2, 3, 4)\n"), done.stderr
