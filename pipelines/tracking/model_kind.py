"""What a model predicts, in which unit: the tags that say so in MLflow, and what versions are compared by.

Tags of the model that a run logs go with it to the registry; an alias keeps its kind
(`pipelines.tracking.registry`), so that whoever loads `models:/NAME@ALIAS` never gets metres for relative
inverse depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import dpt
from pipelines.tracking.metric_keys import MEAN, METRIC, RELATIVE, SEGMENTATION, MetricKey

_UNKNOWN = "unknown"
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ModelKind:
    """What a model predicts; `unknown` for a model that was not logged by dpt.

    Attributes:
        task: `depth` or `segmentation`.
        quantity, unit: those of its `dpt.ModelConfig`.
        predicts: both in words; of a segmentation model with number and first names of the classes.
    """

    task: str = _UNKNOWN
    quantity: str = _UNKNOWN
    unit: str = _UNKNOWN
    predicts: str = _UNKNOWN

    @classmethod
    def of(cls, config: dpt.ModelConfig) -> ModelKind:
        """The kind of a model with this `config`."""
        names = ", ".join(config.class_names[:_NAMES_SHOWN])
        words = config.meaning + (f" ({names}, …)" if names else "")
        return cls(config.task, config.quantity, config.unit, words)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> ModelKind:
        """Inverse of `tags`."""
        return cls(**{field.name: tags.get(field.name, _UNKNOWN) for field in fields(cls)})

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a logged model and of a registered version."""
        return asdict(self)

    @property
    def description(self) -> str:
        """One sentence for people who find the version in MLflow."""
        return f"Predicts {self.predicts}."

    @property
    def compared_by(self) -> str:
        """The metric that decides between two models of this kind, unless another one is named."""
        if self.task == "segmentation":
            return str(MetricKey(SEGMENTATION, "miou", MEAN))
        return str(MetricKey(METRIC if self.unit in ("m", "1/m") else RELATIVE, "abs_rel", MEAN))

    def __str__(self) -> str:
        return "something that its tags do not say" if self.predicts == _UNKNOWN else self.predicts
