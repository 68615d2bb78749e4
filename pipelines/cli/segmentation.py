"""`dpt evaluate` where the datasets have labels: what is counted, logged and printed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from datasets_prep.manifest import PreparedDataset
from pipelines.config import EvaluateConfig
from pipelines.evaluation.segmentation import sample_segmentations
from pipelines.evaluation.segmentation_job import check, evaluate_segmentation, left_out
from pipelines.evaluation.tables import (
    class_csv,
    class_figure,
    extremes_table,
    paper_table,
    summary_table,
)
from pipelines.tracking import runs as tracking
from pipelines.tracking.model_reference import load_network
from pipelines.tracking.registry import note_evaluation

_SHOWN = 4


def evaluate_labelled(
    settings: EvaluateConfig, reference: str, datasets: Sequence[PreparedDataset], console: Console
) -> None:
    """Evaluate a segmentation model; counts are checked before anything is printed.

    Args:
        reference: of the model, see `pipelines.tracking.model_reference.load_network`.

    Raises:
        UserError: see `pipelines.evaluation.segmentation_job.evaluate_segmentation`.
    """
    model = load_network(reference)
    check(settings, model, datasets)
    run = tracking.start_run(f"evaluate {reference}", "evaluate", settings, datasets)
    if reference.startswith(tracking.MODEL_SCHEME):
        note_evaluation(run, reference)
    with tracking.finishing(run):
        counts = evaluate_segmentation(settings, model, datasets)
        for name, count in counts.items():
            run.log_metrics({f"{metric}/{name}": value for metric, value in count.result().items()}, step=0)
            run.log_text(class_csv(name, count), f"classes/{name}.csv")
            run.log_picture(class_figure(name, count), f"classes/{name}.png")
        mean = sum(count.result()["miou"] for count in counts.values()) / len(counts)
        run.log_metrics({"miou/mean": mean}, step=0)
        run.log_picture(sample_segmentations(model, datasets, settings.split, _SHOWN), "predictions.png")
    missing = {d.name: len(left_out(d, settings.split)) for d in datasets}
    console.print(summary_table(counts, missing))
    for name, count in counts.items():
        console.print(extremes_table(name, count))
        table = paper_table(name, count)
        if table is not None and settings.split == "val":
            console.print(table)
    console.print(f"every class: classes/ in MLflow's run {run.run_id}")
