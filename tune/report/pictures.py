"""The qualitative grid of a sweep's report: the same validation images, each variant's prediction."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import cv2
import mlflow
import numpy as np
from mlflow import MlflowClient
from numpy.typing import NDArray

from tune import records
from tune.report.results import SweepResults, Trial

_KINDS = "|".join((records.IMAGE, records.TRUTH, records.PREDICTION))
_NAME = re.compile(rf"(.+)_(\d+)_({_KINDS})\.png")
_LABELS = {records.IMAGE: "image", records.TRUTH: "ground truth"}

Picture = NDArray[np.uint8]


def picture_rows(sweep: SweepResults) -> list[tuple[str, list[tuple[str, Picture]]]]:
    """Validation images of a `sweep`: title, and captioned pictures (image, ground truth, predictions).

    A variant shows its lowest seed that is trained and has pictures, (H, W, 3) uint8 RGB.
    """
    rows: dict[tuple[str, int], dict[str, Picture]] = {}
    variants: set[str] = set()
    for trial in sorted(sweep.trials, key=_order):
        if not trial.counts or trial.variant in variants:
            continue
        for name, picture in _pictures(trial).items():
            if match := _NAME.fullmatch(name):
                variants.add(trial.variant)
                captioned = rows.setdefault((match[1], int(match[2])), {})
                captioned.setdefault(_LABELS.get(match[3], _caption(trial)), picture)
    first = {caption: place for place, caption in enumerate(_LABELS.values())}
    shown = []
    for dataset, number in sorted(rows):
        pictures = sorted(rows[dataset, number].items(), key=lambda item: first.get(item[0], len(first)))
        shown.append((f"{dataset}, validation image {number}", pictures))
    return shown


def _pictures(trial: Trial) -> dict[str, Picture]:
    """File name → picture that a trial logged."""
    if not MlflowClient().list_artifacts(trial.run_id, records.PICTURES):
        return {}
    with tempfile.TemporaryDirectory(prefix="dpt-report-") as folder:
        local = mlflow.artifacts.download_artifacts(
            run_id=trial.run_id, artifact_path=records.PICTURES, dst_path=folder
        )
        found = {path.name: cv2.imread(str(path)) for path in sorted(Path(local).glob("*.png"))}
    return {
        name: np.ascontiguousarray(picture[..., ::-1], np.uint8)
        for name, picture in found.items()
        if picture is not None
    }


def _caption(trial: Trial) -> str:
    """Title of the variant's row in the first of its tables."""
    titles = [trial.rows[name] for name in (*records.TABLES, *sorted(trial.rows)) if name in trial.rows]
    return titles[0] if titles else trial.variant


def _order(trial: Trial) -> tuple[int, str, int]:
    places = [records.TABLES.index(name) for name in trial.rows if name in records.TABLES]
    return min(places, default=len(records.TABLES)), _caption(trial), trial.seed
