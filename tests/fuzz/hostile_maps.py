"""Depth maps made to hurt: floats, NumPy, OpenEXR and HDF5 files of wrong types, wrong sizes and no end.

`LIGHT` ones are small to make and quick to refuse. `HEAVY` ones go to the limit of what is read, and take
seconds.
"""

import io
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import OpenEXR
import scipy.io
import scipy.sparse

from datasets_prep.formats import maps
from tests.fuzz.hostile_pictures import SIDE, Variant

CANARY_VARIABLE = "FUZZ_CANARY"
"""Environment variable with the path of a file that only an executed pickle makes."""

HEIGHT, WIDTH = 48, 64  # Size of the generated datasets' pictures, so that a variant fits its partner.


class Payload:
    """Unpickles to a shell command that leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f'touch "${CANARY_VARIABLE}"',)


def _constant(value: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value, np.float32)


_VALUES: dict[str, np.ndarray] = {
    "NaN": _constant(np.nan),
    "infinity": _constant(np.inf),
    "negative": _constant(-1),
    "zero": _constant(0),
    "constant": _constant(7),
    "subnormal": np.linspace(1e-45, 1e-39, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH),
    "largest": np.linspace(1e38, 3.4e38, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH),
    "every kind of float": np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH).view(np.float32)
    * np.float32(3e38),
    "random bits": np.random.default_rng(1).integers(0, 2**32, (HEIGHT, WIDTH), np.uint32).view(np.float32),
    "transposed": np.linspace(1, 9, HEIGHT * WIDTH, dtype=np.float32).reshape(WIDTH, HEIGHT),
}
_SHAPES: dict[str, tuple[int, ...]] = {
    "no dimension": (),
    "one dimension": (HEIGHT * WIDTH,),
    "three dimensions": (1, HEIGHT, WIDTH),
    "empty": (0, WIDTH),
    "no columns": (HEIGHT, 0),
    "another size": (HEIGHT, WIDTH + 1),
    "one row": (1, HEIGHT * WIDTH),
}


def always(data: bytes) -> Variant:
    return lambda _: data


def _of_values(encode: Callable[[np.ndarray], bytes]) -> dict[str, Variant]:
    return {f"values: {name}": always(encode(values)) for name, values in _VALUES.items()}


# ---- files of a header and floats

_PFM = b"Pf\n%s %s\n%s\n"
_LARGEST_PFM = _PFM % (str(SIDE).encode(), str(SIDE).encode(), b"-1")


def _pfm(width: bytes, height: bytes, scale: bytes) -> Variant:
    return always(_PFM % (width, height, scale) + bytes(4 * HEIGHT * WIDTH))


PFM_LIGHT = _of_values(maps.encode_pfm) | {
    "no width": _pfm(b"0", b"48", b"-1"),
    "negative width": _pfm(b"-64", b"48", b"-1"),
    "huge": _pfm(b"999999999", b"999999999", b"-1"),
    "digits without end": _pfm(b"9" * 100_000, b"48", b"-1"),
    "scale 0": _pfm(b"64", b"48", b"0"),
    "scale NaN": _pfm(b"64", b"48", b"nan"),
    "scale too large for a float": _pfm(b"64", b"48", b"-1e999"),
    "scale nonsense": _pfm(b"64", b"48", b"-.-e+e"),
    "three channels": always(b"PF\n64 48\n-1\n" + bytes(12 * HEIGHT * WIDTH)),
    "big-endian": _pfm(b"64", b"48", b"1.0"),
    "largest without values": always(_LARGEST_PFM),
    "white space without end": always(b"Pf" + b"\n" * 1_000_000),
}
SINTEL_LIGHT = _of_values(maps.encode_sintel_depth) | {
    name: always(b"PIEH" + struct.pack("<2i", *size) + bytes(4 * HEIGHT * WIDTH))
    for name, size in {
        "no size": (0, 0),
        "negative": (-64, -48),
        "huge": (2**31 - 1, 2**31 - 1),
        "overflow to a small number": (65536, 65537),
        "largest": (SIDE, SIDE),
        "transposed": (HEIGHT, WIDTH),
    }.items()
}
RAW_LIGHT = _of_values(lambda values: values.astype("<f4").tobytes()) | {
    "empty": always(b""),
    "twice": lambda data: data + data,
    "one byte more": lambda data: data + b"\0",
}
MAP_HEAVY: dict[str, dict[str, Variant]] = {
    "PFM": {"largest": lambda _: _LARGEST_PFM + bytes(4 * SIDE * SIDE)},
    "Sintel .dpt": {"largest": lambda _: b"PIEH" + struct.pack("<2i", SIDE, SIDE) + bytes(4 * SIDE * SIDE)},
    "NPY": {
        "largest float64": lambda _: _npy("<f8", (SIDE, SIDE), bytes(8 * SIDE * SIDE)),
        "largest float32, Fortran": lambda _: _npy("<f4", (SIDE, SIDE), bytes(4 * SIDE * SIDE), "True"),
        "largest big-endian": lambda _: _npy(">f4", (SIDE, SIDE), bytes(4 * SIDE * SIDE)),
        "too large": lambda _: _npy("<f4", (SIDE, 2 * SIDE), bytes(8 * SIDE * SIDE)),
        "too large, bytes": lambda _: _npy("|u1", (4 * SIDE, SIDE), bytes(4 * SIDE * SIDE)),
    },
}


# ---- NumPy
def _npy(
    descr: str, shape: tuple[int, ...], values: bytes, fortran: str = "False", version: int = 1
) -> bytes:
    quoted = descr if descr.startswith("[") else f"'{descr}'"
    fields = f"{{'descr': {quoted}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(fields))
    return b"\x93NUMPY" + bytes([version, 0]) + length + fields + values


def _saved(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


_FLOATS = _constant(3).tobytes()
_HOSTILE_OBJECTS = pickle.dumps([[Payload()] * 2] * 2)
_NPY_TYPES = ["<f2", "<f8", ">f4", "<i8", "<u2", "|u1", "|b1", "<c8", "<U4", "|S5", "<M8[s]", "|V8", "<f16"]
NPY_LIGHT = (
    _of_values(maps.encode_npy)
    | {f"shape: {n}": always(maps.encode_npy(np.ones(s, np.float32))) for n, s in _SHAPES.items()}
    | {f"type {code}": always(_saved(np.ones((HEIGHT, WIDTH), code))) for code in _NPY_TYPES}
    | {
        "hostile objects": always(_saved(np.array([[Payload()] * 2] * 2, object))),
        "hostile pickle behind an honest header": always(_npy("|O", (2, 2), _HOSTILE_OBJECTS)),
        "structure": always(_npy("[('a', '<f4')]", (HEIGHT, WIDTH), _FLOATS)),
        "code for a header": always(_npy("<f4", (HEIGHT, WIDTH), _FLOATS).replace(b"False", b"exit(")),
        "Fortran": always(_npy("<f4", (HEIGHT, WIDTH), _FLOATS, "True")),
        "version 9": always(_npy("<f4", (HEIGHT, WIDTH), _FLOATS, version=9)),
        "negative shape": always(_npy("<f4", (-HEIGHT, -WIDTH), _FLOATS)),
        "huge shape": always(_npy("<f4", (2**40, 2**40), _FLOATS)),
        "empty and huge": always(_npy("<f4", (0, 2**62), b"")),
        "sixty dimensions": always(_npy("|u1", (1,) * 60, b"\0")),
        "type of 99 bytes": always(_npy("<f99", (1,), bytes(99))),
        "header of 4 GiB": always(b"\x93NUMPY\x02\0\xff\xff\xff\xff{" + _FLOATS),
    }
)


# ---- OpenEXR
def _exr(channels: dict[str, np.ndarray], **header: Any) -> bytes:
    stream = io.BytesIO()
    OpenEXR.File({"type": OpenEXR.scanlineimage, **header}, channels).write(stream)
    return stream.getvalue()


def _with_attribute(name: bytes, code: str, *values: int) -> Variant:
    """The value of an attribute of the header overwritten."""

    def build(data: bytes) -> bytes:
        start = data.find(name + b"\0")
        if start < 0:
            return data
        at = data.index(b"\0", start + len(name) + 1) + 5
        changed = bytearray(data)
        struct.pack_into(code, changed, at, *values)
        return bytes(changed)

    return build


def _with_attribute_size(name: bytes, size: int) -> Variant:
    def build(data: bytes) -> bytes:
        at = data.index(b"\0", data.index(name + b"\0") + len(name) + 1) + 1
        return data[:at] + struct.pack("<i", size) + data[at + 4 :]

    return build


def _parts(count: int) -> bytes:
    stream = io.BytesIO()
    parts = [
        OpenEXR.Part({"name": f"p{i}", "type": OpenEXR.scanlineimage}, {"G": _constant(i + 1)})
        for i in range(count)
    ]
    OpenEXR.File(parts).write(stream)
    return stream.getvalue()


_COMPRESSIONS = {
    name: getattr(OpenEXR, f"{name}_COMPRESSION")
    for name in ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
}


def _largest_exr(channels: int, compression: str) -> Variant:
    def build(_: bytes) -> bytes:
        values = np.zeros((SIDE // channels, SIDE), np.float32)
        names = "GBRAXYZUVW"[:channels]
        return _exr(dict.fromkeys(names, values), compression=_COMPRESSIONS[compression])

    return build


_RAMP = np.linspace(1, 40, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
_WINDOWS = {
    "60,000 squared": (0, 0, 59_999, 59_999),
    "32-bit": (-(2**31), -(2**31), 2**31 - 1, 2**31 - 1),
    "width overflows": (-(2**31), 0, 2**31 - 1, 47),
    "upside down": (63, 47, 0, 0),
    "one row more": (0, 0, 63, 48),
    "one column more": (0, 0, 64, 47),
    "elsewhere": (1000, -1000, 1063, -953),
    "tall": (0, 0, 0, 2**24),
}
_SAMPLING = b"\x01\0\0\0\x01\0\0\0"
EXR_LIGHT: dict[str, Variant] = (
    _of_values(lambda values: _exr({"G": values}))
    | {f"window: {name}": _with_attribute(b"dataWindow", "<4i", *box) for name, box in _WINDOWS.items()}
    | {
        f"compression {name}": always(_exr({"G": _RAMP}, compression=code))
        for name, code in _COMPRESSIONS.items()
    }
    | {f"compression code {n}": _with_attribute(b"compression", "B", n) for n in (0, 1, 4, 6, 9, 10, 99)}
    | {
        "half": always(_exr({"G": _RAMP.astype(np.float16)})),
        "integers": always(_exr({"G": _RAMP.astype(np.uint32)})),
        "no such channel": always(_exr({"A": _RAMP, "Z": _RAMP})),
        "thirty channels": always(_exr({f"layer{i}.G": _RAMP for i in range(30)})),
        "two parts": always(_parts(2)),
        "fifty parts": always(_parts(50)),
        "tiled": always(_exr({"G": _RAMP}, type=OpenEXR.tiledimage, tiles=OpenEXR.TileDescription())),
        "attribute of 2 GiB": _with_attribute_size(b"channels", 2**31 - 1),
        "attribute of less than nothing": _with_attribute_size(b"channels", -5),
        "type name of 1 GiB": _with_attribute_size(b"type", 2**30),
        "display window of 32 bits": _with_attribute(
            b"displayWindow", "<4i", -(2**31), -(2**31), 2**31 - 1, 2**31 - 1
        ),
        "channel sampling 0": lambda data: data.replace(_SAMPLING, bytes(8), 1),
        "channel sampling huge": lambda data: data.replace(_SAMPLING, b"\xff\xff\xff\x7f" * 2, 1),
        "claims to be tiled": lambda data: data[:5] + b"\x02" + data[6:],
        "claims to be deep": lambda data: data[:5] + b"\x08" + data[6:],
        "claims to have parts": lambda data: data[:5] + b"\x10" + data[6:],
    }
)
EXR_HEAVY: dict[str, Variant] = {
    "largest window, few rows": _with_attribute(b"dataWindow", "<4i", 0, 0, SIDE - 1, SIDE - 1),
    "largest ZIP": _largest_exr(1, "ZIP"),
    "largest ZIP, ten channels": _largest_exr(10, "ZIP"),
    "largest PIZ": _largest_exr(1, "PIZ"),
    "largest DWAA": _largest_exr(1, "DWAA"),
    "largest RLE": _largest_exr(1, "RLE"),
}


# ---- HDF5
def _hdf5(build: Callable[[h5py.File], object], **options: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        build(file)
    return stream.getvalue()


def _depth(of_file: dict[str, Any] | None = None, **options: Any) -> Variant:
    return always(_hdf5(lambda file: file.create_dataset("depth", **options), **(of_file or {})))


def _late(build: Callable[[h5py.File], object]) -> Variant:
    return lambda _: _hdf5(build)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((HEIGHT, WIDTH), "f4")
    layout[:] = h5py.VirtualSource("../outside/secret.h5", "depth", (HEIGHT, WIDTH))
    file.create_virtual_dataset("depth", layout)


def _link(link: Any) -> Variant:
    return _late(lambda file: file.__setitem__("depth", link))


def _zeros_in_one_chunk(file: h5py.File) -> None:
    """A small map in one chunk of a gigabyte, which must be inflated whole."""
    side = 2**14
    options = {"chunks": (side, side), "compression": "gzip", "compression_opts": 1}
    stored = file.create_dataset("depth", (HEIGHT, WIDTH), "f4", maxshape=(None, None), **options)
    stored[0, 0] = 1


def _large(file: h5py.File, **options: Any) -> Any:
    return file.create_dataset("depth", chunks=(1000, 1000), **options)


_TYPES: dict[str, Any] = {
    **{code: code for code in ("f2", "f8", ">f4", "i1", "u8", "bool", "c8", "S4", "g")},
    "text": h5py.string_dtype(),
    "lists": h5py.vlen_dtype(np.float32),
    "structure": np.dtype([("a", "f4"), ("b", "i4")]),
    "references": h5py.ref_dtype,
    "array": np.dtype(("f4", (3,))),
    "opaque": np.dtype("V16"),
    "enumeration": h5py.enum_dtype({"far": 0, "near": 1}, "i4"),
}
HDF5_LIGHT: dict[str, Variant] = (
    {f"values: {name}": _depth(data=values) for name, values in _VALUES.items()}
    | {f"shape: {name}": _depth(data=np.ones(shape, np.float32)) for name, shape in _SHAPES.items()}
    | {f"type: {name}": _depth(shape=(HEIGHT, WIDTH), dtype=dtype) for name, dtype in _TYPES.items()}
    | {
        "no data": _depth(data=h5py.Empty("f4")),
        "no dataset": _late(lambda file: file.create_group("nothing")),
        "a group": _late(lambda file: file.create_group("depth")),
        "a type": _late(lambda file: file.__setitem__("depth", np.dtype("f4"))),
        "link to itself": _link(h5py.SoftLink("/depth")),
        "link into another file": _link(h5py.ExternalLink("../outside/secret.h5", "/depth")),
        "link into a device": _link(h5py.ExternalLink("/dev/zero", "/depth")),
        "virtual": _late(_virtual),
        "external values": _depth(
            shape=(HEIGHT, WIDTH), dtype="f4", external=[("../outside/secret.h5", 0, h5py.h5f.UNLIMITED)]
        ),
        "huge, without values": _depth(shape=(2**20, 2**20), dtype="f4", chunks=(1024, 1024)),
        "more than any machine has": _depth(shape=(2**40, 2**20), dtype="f8", chunks=(1024, 1024)),
        "filters": _depth(data=_RAMP, shuffle=True, fletcher32=True, compression="lzf", chunks=(16, 16)),
        "scale and offset": _depth(data=_RAMP, scaleoffset=2, chunks=(16, 16)),
        "newest format": _depth({"libver": "latest"}, data=_RAMP, chunks=(8, 8)),
        "user block": _depth({"userblock_size": 512}, data=_RAMP),
        "names that are no text": _late(lambda file: file.create_group(b"\xff\xfe\xfd")),
        "5,000 names": _late(lambda file: [file.create_group(f"g{i}") for i in range(5000)]),
        "signature alone": lambda data: data[:8],
    }
)
HDF5_HEAVY: dict[str, Variant] = {
    "largest, without values": _depth(shape=(SIDE, SIDE), dtype="f8", chunks=(1000, 1000)),
    "largest, a chunk a pixel": _depth(shape=(SIDE, SIDE), dtype="f4", chunks=(1, 1)),
    "largest, zeros": _late(
        lambda file: _large(file, data=np.zeros((SIDE, SIDE), np.float32), compression="gzip")
    ),
    "largest, half full": _late(
        lambda file: _large(file, shape=(SIDE, SIDE), dtype="f8").__setitem__(slice(0, SIDE // 2), 1.0)
    ),
    "small, in one chunk of a gigabyte": _late(_zeros_in_one_chunk),
}


# ---- MATLAB 5
def _mat(compressed: bool = True, **arrays: Any) -> Variant:
    def build(_: bytes) -> bytes:
        stream = io.BytesIO()
        scipy.io.savemat(stream, arrays, do_compression=compressed)
        return stream.getvalue()

    return build


def _with_dimensions(rows: int, columns: int) -> Variant:
    """Another size in the header of a variable that is not compressed."""

    def build(_: bytes) -> bytes:
        data = _mat(compressed=False, LabelMap=np.ones((HEIGHT, WIDTH), np.uint16))(b"")
        return data.replace(struct.pack("<2i", HEIGHT, WIDTH), struct.pack("<2i", rows, columns), 1)

    return build


MAT_LIGHT: dict[str, Variant] = {
    **{
        f"type {code}": _mat(LabelMap=np.ones((HEIGHT, WIDTH), code))
        for code in ("u1", "i8", "f4", "f8", "c16", "bool")
    },
    "text": _mat(LabelMap="many words"),
    "cells": _mat(LabelMap=np.array([["a", 1.0]], object)),
    "structure": _mat(LabelMap={"a": 1, "b": {"c": [1, 2]}}),
    "sparse": _mat(LabelMap=scipy.sparse.csc_matrix(np.eye(50))),
    "three dimensions": _mat(LabelMap=np.ones((2, 3, 4))),
    "empty": _mat(LabelMap=np.ones((0, 5))),
    "another name": _mat(Map=np.ones((HEIGHT, WIDTH))),
    "not compressed": _mat(compressed=False, LabelMap=np.ones((HEIGHT, WIDTH), np.uint16)),
    "negative size": _with_dimensions(-HEIGHT, -WIDTH),
    "huge size": _with_dimensions(2**31 - 1, 2**31 - 1),
    "size of no values": _with_dimensions(SIDE, SIDE - 1),
    "version 4": lambda data: b"\0" * 20 + data,
    "other byte order": lambda data: data[:126] + b"MI" + data[128:],
}
MAT_HEAVY: dict[str, Variant] = {
    "largest": lambda _: _mat(LabelMap=np.zeros((SIDE, SIDE), np.uint16))(b""),
    "largest, double": lambda _: _mat(LabelMap=np.zeros((SIDE, SIDE)))(b""),
    "another, larger variable": lambda _: _mat(LabelMap=_RAMP, other=np.zeros((2 * SIDE, SIDE)))(b""),
}
