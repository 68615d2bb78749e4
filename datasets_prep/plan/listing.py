"""All samples of a raw dataset with their splits; files too large to be read whole are left out."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow.compute as pc

from datasets_prep.errors import WrongLayout
from datasets_prep.plan.ablation_split import ablation_split
from datasets_prep.plan.split_lists import SplitList, lists_in, with_lists
from datasets_prep.settings import SplitRule
from datasets_prep.sources.base import Listing, Rejection, Source
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.samples import Samples
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing import FileListing

MAX_FILE_BYTES = 512 * 2**20
"""The largest picture that is read (`pictures.MAX_PIXELS`) has 400 MB in double precision, uncompressed."""


def list_samples(
    source: Source, root: Folder, lists: Sequence[SplitList] = (), rule: SplitRule = "official"
) -> Listing:
    """All samples of a dataset with their splits, those with a file too large to be read left out.

    Args:
        source: the dataset.
        root: the dataset root.
        lists: lists given by the user; if empty, the lists in the dataset root are used.
        rule: the official splits, or the split of the paper's ablations.

    Raises:
        WrongLayout: if the folder holds another dataset, a list cannot be used (`with_lists`), or the
            ablation split is not of this dataset or is given lists.
    """
    if rule == "ablation" and lists:
        raise WrongLayout("lists: the ablation split takes none; drop them or split_rule=ablation")
    visible, hidden = root.files().visible()
    root = root.with_files(visible)
    listing = source.list(root)
    if listing.samples and not isinstance(source, PairedSource):  # which counts them itself
        listing.unread = _unread(source, root, listing)
    reason = "hidden, special, or a file of the operating system"
    listing.unused += [Rejection(path, reason) for path in hidden]
    if rule == "ablation":
        listing.samples = Samples(ablation_split(source.name, listing.samples))
    elif listing.samples:
        found = lists or list(lists_in(source, root))
        if found or source.only_listed:
            listing = with_lists(source, listing, found, strict=bool(lists))
    return listing if source.reads_pieces else without_oversized(listing, root.files())


def _unread(source: Source, root: Folder, listing: Listing) -> tuple[int, str]:
    """`Listing.unread`: files of `root` that the `listing` of `source` does not mention."""
    used = {path for sample in listing.samples for path in sample.files.values()}
    used.update(entry.path for entry in listing.rejected)
    others = (path for path in root.files() if path not in used and not source.split_of_list(path))
    first = next(others, "")
    return bool(first) + sum(1 for _ in others), first


def without_oversized(listing: Listing, files: FileListing) -> Listing:
    """The `listing` without samples that have a file of more than `MAX_FILE_BYTES` in `files`."""
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
    return replace(listing, samples=kept, rejected=rejected)
