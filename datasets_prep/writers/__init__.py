"""Writers of generated datasets, one file a dataset: the mirror of `sources`."""

from datasets_prep.writers import (
    ade20k,
    apolloscape,
    blendedmvs,
    diml,
    diw,
    eth3d,
    folder,
    hrwsi,
    irs,
    kitti,
    megadepth,
    movies,
    nyuv2,
    nyuv2_labelled,
    pascal_context,
    redweb,
    sintel,
    tartanair,
    tum,
    wsvd,
)
from datasets_prep.writers.base import Writer
from datasets_prep.writers.stereo_video import StereoWriter

WRITERS: dict[str, Writer | StereoWriter] = {
    "redweb": redweb.WRITER,
    "diml": diml.INDOOR,
    "diml_outdoor": diml.OUTDOOR,
    "movies": movies.WRITER,
    "megadepth": megadepth.WRITER,
    "wsvd": wsvd.WRITER,
    "tartanair": tartanair.WRITER,
    "hrwsi": hrwsi.WRITER,
    "apolloscape": apolloscape.WRITER,
    "blendedmvs": blendedmvs.WRITER,
    "irs": irs.WRITER,
    "eth3d": eth3d.WRITER,
    "kitti": kitti.WRITER,
    "kitti_161": kitti.WRITER,
    "nyuv2": nyuv2.WRITER,
    "nyuv2_labelled": nyuv2_labelled.WRITER,
    "sintel": sintel.WRITER,
    "tum": tum.WRITER,
    "diw": diw.WRITER,
    "ade20k": ade20k.WRITER,
    "pascal_context_59": pascal_context.WRITER,
    "pascal_context_60": pascal_context.WRITER,
    "folder": folder.WRITER,
}
"""Dataset name → its writer."""
