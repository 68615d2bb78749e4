"""Which byte format a file has, by its content: what the fuzz suite counts by."""

from pathlib import PurePosixPath

_MAGIC = {
    **{b"\xff\xd8": "JPEG", b"\x93NUMPY": "NPY", b"Pf": "PFM", b"PIEH": "Sintel .dpt", b"II*\0": "TIFF"},
    **{b"\x76\x2f\x31\x01": "EXR", b"\x89HDF\r\n\x1a\n": "HDF5", b"MATLAB 7.3": "HDF5", b"MATLAB 5": "MAT 5"},
    **{b"PAR1": "Parquet", b"\x80": "pickle", b"\x1aE\xdf\xa3": "video"},
}
_TEXT = {".txt", ".csv", ".yaml", ".yml", ".json", ".list", ".lst"}
_RAW_FLOATS = "raw float32"


def file_format(path: str, data: bytes) -> str:
    """Name of a file's format; 8-bit and 16-bit PNG, and text by its suffix, are told apart."""
    if data.startswith(b"\x89PNG"):
        return f"PNG {max(8, data[24])}-bit"
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return "video"
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _TEXT:
        return f"list {suffix}"
    # Floats without a header, under the name of a photo, are ETH3D's.
    return _RAW_FLOATS if suffix in (".jpg", ".bin", ".raw") else f"other {suffix}"


def is_text(name: str) -> bool:
    """Whether a format is made of lines."""
    return name.startswith("list ")
