"""The qualitative grid of a sweep's report: the same validation images, each variant's prediction."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from tune import records
from tune.report.results import SweepResults, Trial, pictures

_KINDS = "|".join((records.IMAGE, records.TRUTH, records.PREDICTION))
_NAME = re.compile(rf"{records.PICTURES}/(.+)_(\d+)_({_KINDS})\.png")
_LABELS = {records.IMAGE: "image", records.TRUTH: "ground truth"}

Picture = NDArray[np.uint8]


def picture_rows(sweep: SweepResults) -> list[tuple[str, list[tuple[str, Picture]]]]:
    """For each validation image: a title, and captioned pictures: image, ground truth, predictions.

    A variant shows its lowest seed that is trained and has pictures.
    """
    rows: dict[tuple[str, int], dict[str, Picture]] = {}
    variants: set[str] = set()
    for trial in sorted(sweep.trials, key=_order):
        if not trial.counts or trial.variant in variants:
            continue
        found = pictures(trial)
        if found:
            variants.add(trial.variant)
        for path, picture in found.items():
            if match := _NAME.fullmatch(path):
                dataset, number, what = match[1], int(match[2]), match[3]
                captioned = rows.setdefault((dataset, number), {})
                captioned.setdefault(_LABELS.get(what, caption_of(trial)), picture)
    return [
        (f"{dataset}, validation image {number}", _first_things_first(rows[dataset, number]))
        for dataset, number in sorted(rows)
    ]


def caption_of(trial: Trial) -> str:
    """What people call the variant: its row's title in the first of its tables."""
    titles = [trial.rows[name] for name in (*records.TABLES, *sorted(trial.rows)) if name in trial.rows]
    return titles[0] if titles else trial.variant


def _order(trial: Trial) -> tuple[int, str, int]:
    places = [records.TABLES.index(name) for name in trial.rows if name in records.TABLES]
    return min(places, default=len(records.TABLES)), caption_of(trial), trial.seed


def _first_things_first(captioned: dict[str, Picture]) -> list[tuple[str, Picture]]:
    return sorted(captioned.items(), key=lambda item: [*_LABELS.values(), item[0]].index(item[0]))
