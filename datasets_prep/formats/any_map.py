"""A map of numbers in any format that a user's own folder may have, chosen by the ending of its name."""

import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats import maps
from datasets_prep.formats.hdf5 import MAX_BYTES, decode_hdf5_array
from datasets_prep.formats.netpbm import decode_netpbm
from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.formats.tiff import decode_tiff

_EXR_GREYS = ("Y", "G", "R")


def decode_map(data: bytes, ending: str, role: str, channel: str | None) -> NDArray[np.float32]:
    """The map in the file `data`.

    Args:
        data: content of the file.
        ending: of its name, a key of `DECODERS`.
        role: the file's, with which errors begin.
        channel: EXR channel, or array of an NPZ or HDF5 file; None: of an EXR `Z`, or the only one that is
            called depth, else `Y`, or `G` or `R` of a grey picture; else the only one.

    Returns:
        (H, W) float32, values as stored.

    Raises:
        BadSample: if the file is damaged, or has no such map.
    """
    values = DECODERS[ending](data, role, channel)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2 or not values.size:
        raise BadSample(f"{role} {ending.upper()} holds {values.shape} {values.dtype}, expected a map")
    return values.astype(np.float32)


def _decode_exr(data: bytes, role: str, channel: str | None) -> NDArray[np.float32]:
    if channel is not None:
        return maps.decode_exr(data, role, (channel,), or_single=False)
    names = maps.exr_channels(data, role)
    depths = ["Z"] if "Z" in names else [name for name in names if _is_depth(name, names)]
    if len(depths) > 1 or (len(names) > 1 and not {*depths, *_EXR_GREYS} & {*names}):
        raise BadSample(f"{role} EXR has channels {sorted(names)!r:.200}; choose one of them as `channel`")
    values = maps.decode_exr(data, role, depths or _EXR_GREYS)
    if not depths and {"R", "G", "B"} <= {*names}:
        others = (maps.decode_exr(data, role, (name,)) for name in "RB")
        if any(not np.array_equal(values, other, equal_nan=True) for other in others):
            raise BadSample(f"{role} EXR is a colour picture; if it has depth, choose it as `channel`")
    return values


def _is_depth(name: str, names: Sequence[str]) -> bool:
    """Whether the channel is depth by its `name`, as renderers call it: `Camera.Z`, `ViewLayer.Depth.V`.

    `normal.Z`, beside `normal.X` among the `names`, is not.
    """
    layer, _, last = name.rpartition(".")
    if last.lower() in ("x", "y", "z") and any(f"{layer}.{axis}" in names for axis in "XxYy"):
        return False
    return last.lower() in ("z", "depth") or layer.rpartition(".")[2].lower() == "depth"


def _decode_npz(data: bytes, role: str, channel: str | None) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            entry = arrays[_chosen(list(arrays), f"{role} NPZ", channel)]
            if entry.file_size > MAX_BYTES:
                raise BadSample(f"{role} NPZ declares {entry.file_size} bytes, at most {MAX_BYTES} are read")
            return maps.decode_npy(archive.read(entry), role)
    except BadSample:
        raise
    except Exception as error:  # the library raises anything from KeyError to zlib.error
        raise BadSample(f"{role} NPZ damaged: {error}") from error


def _decode_hdf5(data: bytes, role: str, channel: str | None) -> NDArray[Any]:
    import h5py  # type: ignore[import-untyped, unused-ignore]

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            links = {name: file.get(name, getlink=True) for name in file}
            own = [name for name, link in links.items() if isinstance(link, h5py.HardLink)]
            names = [name for name in own if getattr(file[name], "ndim", 0) == 2]
    except Exception as error:  # the library raises anything from RuntimeError to KeyError
        raise BadSample(f"{role} HDF5 damaged: {error}") from error
    name = channel.strip("/") if channel is not None else _chosen(names, f"{role} HDF5", None)
    return decode_hdf5_array(data, role, name, 2)


def _chosen(names: list[str], file: str, channel: str | None) -> str:
    if channel in names:
        return str(channel)
    if channel is None and len(names) == 1:
        return names[0]
    wanted = f"no {channel!r}" if channel is not None else "no single map; choose one as `channel`"
    raise BadSample(f"{file} has arrays {sorted(names)!r:.200}: {wanted}")


def _without_channel(decode: Callable[[bytes, str], NDArray[Any]]) -> Callable[..., NDArray[Any]]:
    return lambda data, role, channel: decode(data, role)


DECODERS: dict[str, Callable[[bytes, str, str | None], NDArray[Any]]] = {
    "png": _without_channel(decode_grey_png),
    "npy": _without_channel(maps.decode_npy),
    "npz": _decode_npz,
    "exr": _decode_exr,
    "pfm": _without_channel(maps.decode_pfm),
    "tif": _without_channel(decode_tiff),
    "tiff": _without_channel(decode_tiff),
    "pgm": _without_channel(decode_netpbm),
    "h5": _decode_hdf5,
    "hdf5": _decode_hdf5,
}
"""Ending of a name → decoder of the file's content, with its role and the channel."""
