"""Figure 4: AbsRel of a trained model when images go through it at higher resolutions than in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.config import EvaluateConfig, TrainConfig
from pipelines.evaluate import evaluate, mean_over_datasets
from pipelines.tracking import runs as tracking
from tune import records

_FACTORS = (1, 7 / 6, 4 / 3, 3 / 2, 5 / 3)
"""384 pixels in training: 384, 448, 512, 576, 640."""


def resolutions(crop: int, divisor: int, chosen: Sequence[int]) -> list[int]:
    """Sides in pixels to evaluate at, ascending, each at least the training crop's and of whole patches.

    Args:
        divisor: sides are multiples of it.
        chosen: by the user; empty for the default.
    """
    wanted: Sequence[float] = chosen or [crop * factor for factor in _FACTORS]
    whole = {max(crop, round(side / divisor) * divisor) for side in wanted}
    return sorted({crop, *whole})


def log_resolutions(
    run: tracking.Run,
    checkpoint: Path,
    data: Sequence[str],
    config: TrainConfig,
    chosen: Sequence[int],
    divisor: int,
    threads: int,
    known: dict[str, float],
) -> None:
    """Evaluate at all resolutions that `known` lacks, and log AbsRel of each dataset and their mean.

    That at the training resolution is what the training's last validation found. At others the shorter side
    of an image is what is asked for: the rule of most models would change its size as little as it can.
    """
    names = sorted(key.partition("/")[2] for key in known if key.startswith(records.abs_rel("")))
    trained_at = min(config.crop_size)
    for side in resolutions(trained_at, divisor, chosen):
        if records.abs_rel_at(side, records.MEAN) in known:
            continue
        if side == trained_at:
            figures = {name: known[records.abs_rel(name)] for name in names}
        else:
            settings = EvaluateConfig(
                split=config.val_split,
                side=side,
                rule="lower_bound",
                caps=config.caps,
                workers=config.most_workers,
                device=config.device,
            )
            results = evaluate(settings, checkpoint, data, threads)
            figures = {name: result["abs_rel"] for name, result in results.items()}
            figures[records.MEAN] = mean_over_datasets(results, "abs_rel")
        run.log_metrics({records.abs_rel_at(side, n): value for n, value in figures.items()}, config.steps)
