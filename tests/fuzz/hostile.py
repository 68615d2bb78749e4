"""Every file made to hurt, by the format that it claims to be."""

from tests.fuzz import hostile_maps, hostile_pickles, hostile_pictures, hostile_text
from tests.fuzz.file_format import is_text
from tests.fuzz.hostile_pictures import Variant

_LIGHT: dict[str, dict[str, Variant]] = {
    "JPEG": hostile_pictures.JPEG_LIGHT,
    "PNG 8-bit": hostile_pictures.PNG_LIGHT,
    "PNG 16-bit": hostile_pictures.PNG_LIGHT,
    "NPY": hostile_maps.NPY_LIGHT,
    "PFM": hostile_maps.PFM_LIGHT,
    "Sintel .dpt": hostile_maps.SINTEL_LIGHT,
    "EXR": hostile_maps.EXR_LIGHT,
    "HDF5": hostile_maps.HDF5_LIGHT,
    "raw float32": hostile_maps.RAW_LIGHT,
    "MAT 5": hostile_maps.MAT_LIGHT,
    "TIFF": hostile_pictures.TIFF_LIGHT,
    "pickle": hostile_pickles.PICKLE_LIGHT,
}
_HEAVY: dict[str, dict[str, Variant]] = {
    **hostile_maps.MAP_HEAVY,
    "JPEG": hostile_pictures.JPEG_HEAVY,
    "PNG 8-bit": hostile_pictures.PNG_HEAVY,
    "PNG 16-bit": hostile_pictures.PNG_HEAVY,
    "EXR": hostile_maps.EXR_HEAVY,
    "HDF5": hostile_maps.HDF5_HEAVY,
    "MAT 5": hostile_maps.MAT_HEAVY,
    "TIFF": hostile_pictures.TIFF_HEAVY,
    "pickle": hostile_pickles.PICKLE_HEAVY,
}


def light(name: str) -> dict[str, Variant]:
    """Hostile files of a format that are small to make and quick to refuse."""
    return hostile_text.TEXT_LIGHT if is_text(name) else _LIGHT.get(name, {})


def heavy(name: str) -> dict[str, Variant]:
    """Those that go to the limit of what is read."""
    return hostile_text.TEXT_HEAVY if is_text(name) else _HEAVY.get(name, {})
