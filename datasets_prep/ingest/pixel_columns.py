"""One raw sample → the columns of its row that come from pixels, by what its ground truth is."""

from __future__ import annotations

from typing import Any

from datasets_prep.ingest.evaluation_rows import native_depth_columns, point_pair_columns
from datasets_prep.ingest.label_rows import label_columns
from datasets_prep.ingest.normalize import ResizeRule, normalize
from datasets_prep.sources.base import RawLabels, RawPointPair, RawSample, Source


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
