"""The layouts that the generator can write, by dataset; one file each, the counterpart of `sources`."""

from __future__ import annotations

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
from datasets_prep.writers.base import Layout

LAYOUTS: dict[str, Layout] = {
    "redweb": redweb.LAYOUT,
    "diml": diml.INDOOR,
    "diml_outdoor": diml.OUTDOOR,
    "movies": movies.LAYOUT,
    "megadepth": megadepth.LAYOUT,
    "wsvd": wsvd.LAYOUT,
    "tartanair": tartanair.LAYOUT,
    "hrwsi": hrwsi.LAYOUT,
    "apolloscape": apolloscape.LAYOUT,
    "blendedmvs": blendedmvs.LAYOUT,
    "irs": irs.LAYOUT,
    "eth3d": eth3d.LAYOUT,
    "kitti": kitti.LAYOUT,
    "kitti_161": kitti.LAYOUT,
    "nyuv2": nyuv2.LAYOUT,
    "nyuv2_labelled": nyuv2_labelled.LAYOUT,
    "sintel": sintel.LAYOUT,
    "tum": tum.LAYOUT,
    "diw": diw.LAYOUT,
    "ade20k": ade20k.LAYOUT,
    "pascal_context_59": pascal_context.LAYOUT,
    "pascal_context_60": pascal_context.LAYOUT,
    "folder": folder.LAYOUT,
}
"""Dataset name → its layout."""
