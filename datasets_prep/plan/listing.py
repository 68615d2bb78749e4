"""Files too large to be read whole: their samples are left out before any process opens them."""

from __future__ import annotations

import pyarrow.compute as pc

from datasets_prep.sources.base import Listing, Rejection
from datasets_prep.sources.samples import Samples
from datasets_prep.storage.listing import FileListing

MAX_FILE_BYTES = 512 * 2**20
"""The largest picture that is read (`formats.MAX_PIXELS`) has 400 MB in double precision, not compressed."""


def without_oversized(listing: Listing, files: FileListing) -> Listing:
    """A listing without the samples that have a file of more than `MAX_FILE_BYTES`; these are rejected."""
    large = files.table.filter(pc.greater(files.table.column("bytes"), MAX_FILE_BYTES)).to_pydict()
    sizes = dict(zip(large["path"], large["bytes"], strict=True))
    if not sizes:
        return listing
    kept, rejected = Samples(), list(listing.rejected)
    for sample in listing.samples:
        path = next((path for path in sample.files.values() if path in sizes), None)
        if path is None:
            kept.append(sample)
        else:
            reason = f"file of {sizes[path]} bytes, at most {MAX_FILE_BYTES} are read"
            rejected.append(Rejection(path, reason))
    return Listing(kept, rejected)
