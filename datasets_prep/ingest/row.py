"""One raw sample → one row of a shard."""

from __future__ import annotations

from typing import Any

from datasets_prep.errors import BadSample
from datasets_prep.ingest.evaluation_rows import native_depth_columns, point_pair_columns
from datasets_prep.ingest.label_rows import label_columns
from datasets_prep.ingest.normalize import normalize
from datasets_prep.settings import IngestSettings, ResizeRule
from datasets_prep.sources.base import RawLabels, RawPointPair, RawSample, Source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import DigestingFolder


def make_row(
    source: Source, root: DigestingFolder, sample: Sample, split: str, settings: IngestSettings
) -> dict[str, Any]:
    """Read and normalise a sample.

    Args:
        split: that the sample is in, official or drawn.

    Returns:
        The columns of `schema.SCHEMA`; those that a sample does not have may be missing.

    Raises:
        BadSample: with the reason, if it cannot be used.
        StorageFailed: if storage fails; the sample itself may be good.
    """
    root.take_digest()
    try:
        raw = source.read(root, sample)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BadSample(f"{type(error).__name__}: {error}") from error
    digest = root.take_digest()
    pixels = pixel_columns(
        raw,
        source,
        split,
        side=settings.side,
        rule=settings.resize,
        jpeg_quality=settings.jpeg_quality,
        min_valid_share=settings.min_valid_share,
        min_dynamic_range=settings.min_dynamic_range,
    )
    return {
        "sample_id": sample.sample_id,
        "dataset": source.name,
        "split": split,
        "source_path": sample.files["image"],
        "source_digest": digest,
        **pixels,
    }


def pixel_columns(
    raw: RawSample | RawLabels | RawPointPair,
    source: Source,
    split: str,
    *,
    side: int,
    rule: ResizeRule,
    jpeg_quality: int,
    min_valid_share: float,
    min_dynamic_range: float,
) -> dict[str, Any]:
    """Make a row but for ids and provenance; settings as in `shard_plan.IngestSettings`.

    Raises:
        BadSample: with the reason, if the sample cannot be used.
    """
    native = split in source.native_splits
    if isinstance(raw, RawPointPair):
        return point_pair_columns(raw)
    if isinstance(raw, RawLabels):
        return label_columns(
            raw,
            side=side,
            rule=rule,
            jpeg_quality=jpeg_quality,
            min_valid_share=min_valid_share,
            native=native,
        )
    if native:
        return native_depth_columns(raw, source.target_kind)
    return normalize(
        raw,
        source.target_kind,
        side=side,
        rule=rule,
        jpeg_quality=jpeg_quality,
        min_valid_share=min_valid_share,
        min_dynamic_range=min_dynamic_range,
        sizes_may_differ=source.sizes_may_differ,
    )
