"""Whether a prepared dataset has the images of the paper's Tables 2 and 3 (`evaluation.sets.OFFICIAL`).

A figure over other images is another figure: fine-tuning is refused, or the difference is printed, and no
table of the paper takes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from datasets_prep.errors import UserError
from datasets_prep.manifest import QUARANTINE_NAME, PreparedDataset
from datasets_prep.storage.sealed_parquet import reading_shard
from pipelines.evaluation.sets import OFFICIAL, FineTuningSet, MetricProtocol
from pipelines.tracking.metric_keys import METRIC, keyed, with_mean
from pipelines.tracking.registry import note_protocol
from pipelines.tracking.runs import Run

_SHOWN = 5


class WrongSplit(UserError):
    """A dataset without the images of its official split; the message says how they differ."""


def check_split(dataset: PreparedDataset, allow_missing: bool, say: Callable[[str], None]) -> None:
    """Compare a prepared `dataset` with its official split, if it has one.

    With `allow_missing`, `say` prints the difference instead of an error.

    Raises:
        WrongSplit: naming the difference, and some of the images that were left out.
    """
    official = OFFICIAL.get(dataset.name)
    problem = _difference(dataset, official) if official else ""
    if problem and not allow_missing:
        raise WrongSplit(f"{problem}; --allow-missing continues anyway")
    if problem:
        say(problem)


def is_official(dataset: PreparedDataset, split: str, protocol: MetricProtocol) -> bool:
    """Whether figures on a `split` of a prepared `dataset` by a `protocol` belong into Table 2 or 3."""
    official = OFFICIAL.get(dataset.name)
    if official is None or (split, protocol) != ("test", official.protocol):
        return False
    return dataset.manifest.samples.get(split) == official.images and _has_test_images(dataset, official)


def log_metric_results(
    run: Run,
    results: Mapping[str, Mapping[str, float]],
    datasets: Sequence[PreparedDataset],
    split: str,
    protocols: Mapping[str, MetricProtocol],
) -> None:
    """Log to a `run` the `results` (dataset → metric → value) of a metric model, and how they were measured.

    They are of the `split` of the `datasets`, by `protocols`, one for each dataset by name.
    """
    run.log_metrics(keyed(METRIC, with_mean(results)), step=0)
    official = [d.name for d in datasets if is_official(d, split, protocols[d.name])]
    note_protocol(run, {name: str(protocol) for name, protocol in protocols.items()}, official)


def of_how_many(dataset: str, split: str, images: float) -> str:
    """`650 of 652` for `images` of an official `split` of `dataset` that has more; else `650`."""
    whole = OFFICIAL[dataset].split_images.get(split, images) if dataset in OFFICIAL else images
    return f"{images:.0f}" if whole == images else f"{images:.0f} of {whole}"


def _difference(dataset: PreparedDataset, official: FineTuningSet) -> str:
    found = {split: dataset.manifest.samples.get(split, 0) for split in official.split_images}
    wrong = [
        f"{found[split]} of {expected} {split} images"
        for split, expected in official.split_images.items()
        if found[split] != expected
    ]
    name, title = dataset.name, official.title
    advice = f"prepare it with {official.lists}"
    if wrong:
        rows = dataset.read_quarantine() if dataset.manifest.quarantined else []
        shown = ", ".join(f"{row['source_path']} ({row['reason']})" for row in rows[:_SHOWN])
        left_out = f" ({len(rows)} left out, all in {dataset.folder.uri}/{QUARANTINE_NAME}: {shown})"
        return f"{name} has {' and '.join(wrong)} of the {title}{left_out if rows else ''}; {advice}"
    if not _has_test_images(dataset, official):
        return f"{name}: the {official.images} test images are not those of the {title}; {advice}"
    return ""


def _has_test_images(dataset: PreparedDataset, official: FineTuningSet) -> bool:
    names: list[str] = []
    for shard in dataset.manifest.split("test"):
        with reading_shard(dataset.folder, shard.name) as file:
            names += file.read(columns=["sample_id"])["sample_id"].to_pylist()
    listed = "\n".join(sorted(official.listed_name(sample_id) for sample_id in names))
    return hashlib.sha256(listed.encode()).hexdigest() == official.digest
