"""The model card (README.md) of a folder for Hugging Face: what it predicts, its licence, data, metrics."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dpt
from dpt.weights.hugging_face import ignored_by_transformers
from dpt.zoo import MODELS
from pipelines.evaluation.paper_tables import TABLES
from pipelines.plain_tables import in_markdown

if TYPE_CHECKING:
    from pipelines.tracking.registry import Measurement


def model_card(config: dpt.ModelConfig, source: str, measurements: Sequence[Measurement]) -> str:
    """Markdown, with the metadata in YAML that the Hub reads.

    Args:
        config: of the model.
        source: where its weights come from.
        measurements: of a registered model, newest first; the last is that of its training. May be empty.
    """
    licences = sorted({card.licence for card in MODELS.values() if card.config.backbone == config.backbone})
    task = "image-segmentation" if config.task == "segmentation" else "depth-estimation"
    known = " or ".join(licence for licence in licences if licence) or "unknown"
    lines = ["---", "library_name: transformers", f"pipeline_tag: {task}"]
    lines += [f"license: {known.lower()}"] if len(licences) == 1 and known != "unknown" else []
    lines += [
        "tags: [dpt, dense-prediction, vision]",
        "---",
        "",
        f"# {in_markdown(source.rstrip('/').rpartition('/')[2])}",
        "",
    ]
    lines += [f"A dense prediction transformer (DPT) with the backbone `{config.backbone}`.", ""]
    lines += [f"It predicts {config.meaning}.", "", "```python", "from transformers import pipeline", ""]
    lines += [
        f'predict = pipeline("{task}", model="FOLDER OR OWNER/NAME")',
        'predict("photo.jpg")',
        "```",
        "",
    ]
    lines += [*(f"* {difference}" for difference in ignored_by_transformers(config)), ""]
    lines += ["## Licence", "", f"Published weights of this backbone: {known}.", ""]
    if measurements:
        from pipelines.report.model_page import beside_the_paper  # needs Matplotlib and MLflow

        data = ", ".join(
            f"{in_markdown(name)} ({digest[:8]})" for name, digest in measurements[-1].data.items()
        )
        lines += ["## Data", "", f"Trained on {data or 'unknown data'} (digests of the manifests).", ""]
        figures = ChainMap(*(found.paper_figures() for found in measurements))
        metrics = ChainMap(*(found.metrics for found in measurements))
        lines += ["## Metrics", "", "| metric | value |", "|---|---|"]
        lines += [f"| {in_markdown(name)} | {value:.4f} |" for name, value in sorted(metrics.items())]
        beside = [table for paper in TABLES if (table := beside_the_paper(paper, figures))]
        lines += ["", *(f"{table.title}\n\n{table.markdown()}" for table in beside)]
    return "\n".join(lines) + "\n"
