"""What a model predicts, in which unit: the tags that say so in MLflow, and what versions are compared by.

Tags of the model that a run logs go with it to the registry; an alias keeps its kind
(`pipelines.tracking.registry`), so that whoever loads `models:/NAME@ALIAS` never gets metres for relative
inverse depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import dpt
from pipelines.tracking.metric_keys import MEAN, METRIC, RELATIVE, SEGMENTATION, MetricKey

METRES, INVERSE_DEPTH = "metres", "relative inverse depth"
_UNKNOWN = "unknown"
_NAMES_SHOWN = 3
_MEANING = {
    METRES: "Depth in metres.",
    INVERSE_DEPTH: "Inverse depth: larger is nearer, up to an unknown scale and shift of each image.",
}


@dataclass(frozen=True, slots=True)
class ModelKind:
    """What a model predicts.

    Attributes:
        task: `depth` or `segmentation`; `unknown` for a model that was not logged by dpt.
        unit: `METRES`, `INVERSE_DEPTH`, or number and first names of the classes.
    """

    task: str = _UNKNOWN
    unit: str = _UNKNOWN

    @classmethod
    def of(cls, config: dpt.ModelConfig) -> ModelKind:
        """The kind of a model with this `config`."""
        if config.task == "depth":
            return cls(config.task, METRES if config.metric else INVERSE_DEPTH)
        names = ", ".join(config.class_names[:_NAMES_SHOWN])
        return cls(config.task, f"{config.classes} classes" + (f" ({names}, …)" if names else ""))

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> ModelKind:
        """Inverse of `tags`."""
        return cls(tags.get("task", _UNKNOWN), tags.get("unit", _UNKNOWN))

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a logged model and of a registered version."""
        return asdict(self)

    @property
    def description(self) -> str:
        """One sentence for people who find the version in MLflow."""
        return _MEANING.get(self.unit, f"Class of each pixel: {self.unit}.")

    @property
    def compared_by(self) -> str:
        """The metric that decides between two models of this kind, unless another one is named."""
        if self.task == "segmentation":
            return str(MetricKey(SEGMENTATION, "miou", MEAN))
        return str(MetricKey(METRIC if self.unit == METRES else RELATIVE, "abs_rel", MEAN))

    def __str__(self) -> str:
        return f"{self.task}, {self.unit}"
