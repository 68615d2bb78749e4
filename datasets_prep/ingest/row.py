"""One raw sample → one row of a shard."""

from typing import Any

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import check_aspect, image_size
from datasets_prep.ingest.evaluation_rows import evaluation_depth_columns, point_pair_columns
from datasets_prep.ingest.label_rows import label_columns
from datasets_prep.ingest.normalize import normalize
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import RawLabels, RawPointPair, RawSample, Source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import DigestingFolder


def make_row(
    source: Source, root: DigestingFolder, sample: Sample, split: str, settings: IngestSettings
) -> dict[str, Any]:
    """Read and normalise the `sample` of `source` below `root`; `split` is official or drawn.

    Returns the columns of `schema.SCHEMA` by `settings`; those that a sample does not have may be missing.
    Raises BadSample with the reason, if it cannot be used; StorageFailed if storage fails: the sample itself
    may be good.
    """
    root.take_digest()
    try:
        raw = source.read(root, sample)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BadSample(f"{type(error).__name__}: {error}") from error
    origin = {"source_path": sample.files["image"], "source_digest": root.take_digest()}
    columns = pixel_columns(raw, source, split, settings)
    return {"sample_id": sample.sample_id, "dataset": source.name, "split": split, **origin, **columns}


def pixel_columns(
    raw: RawSample | RawLabels | RawPointPair, source: Source, split: str, settings: IngestSettings
) -> dict[str, Any]:
    """The columns of a row that come from the pixels of `raw`, a sample of `source`, by `settings`.

    Rows of a `split` in `source.evaluation_splits` keep their native resolution. Raises BadSample with the
    reason, if the sample cannot be used.
    """
    check_aspect(*image_size(raw.image))
    for_evaluation = split in source.evaluation_splits
    if isinstance(raw, RawPointPair):
        return point_pair_columns(raw)
    if isinstance(raw, RawLabels):
        return label_columns(raw, settings, for_evaluation)
    if for_evaluation:
        return evaluation_depth_columns(raw, source.target_kind)
    return normalize(raw, source.target_kind, settings, source.sizes_may_differ)
