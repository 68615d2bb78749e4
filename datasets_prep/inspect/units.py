"""Whether metric depth of a user can be in metres: a wrong `scale` is the commonest mistake."""

import numpy as np

from datasets_prep.manifest import PreparedDataset
from datasets_prep.storage.sealed_parquet import reading_shard

USUAL_METRES = (0.05, 500.0)
"""Median depth of photos outside of microscopes and aeroplanes."""

_READ_SHARDS = 8  # evenly spaced; each costs a request on an object store


def unit_hint(dataset: PreparedDataset) -> str | None:
    """A line about the unit of `dataset`, if its median depth is unusual in metres; else None."""
    if dataset.manifest.target_kind != "metric":
        return None
    shards = dataset.manifest.shards
    chosen = np.unique(np.linspace(0, len(shards) - 1, _READ_SHARDS).astype(int))
    medians: list[float] = []
    for index in chosen:
        with reading_shard(dataset.folder, shards[index].name) as file:
            rows = file.read(columns=["scale", "inverse_depth_median"])
        scale, inverse = (column.to_numpy() for column in rows.columns)
        medians += (1 / (scale * inverse)[inverse > 0]).tolist()
    metres = float(np.median(medians)) if medians else USUAL_METRES[0]
    if USUAL_METRES[0] <= metres <= USUAL_METRES[1]:
        return None
    length = f"{metres / 1000:.2g} km" if metres > 1 else f"{metres * 1000:.2g} mm"
    known = "stored metres have 1, stored millimetres 0.001"
    return (
        f"median depth is {length}: is `scale` of dataset.yaml right? It is metres per stored unit: {known}"
    )
