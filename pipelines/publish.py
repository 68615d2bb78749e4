"""`dpt publish`: the model of a finished run → MLflow's registry, under an alias that others look up."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import tracking


@dataclass(frozen=True, slots=True)
class Published:
    """A registered model version and its address."""

    name: str
    version: int
    alias: str | None

    @property
    def uri(self) -> str:
        """`models:/dpt@champion`, or by version where there is no alias."""
        tail = f"@{self.alias}" if self.alias else f"/{self.version}"
        return f"{tracking.MODEL_SCHEME}{self.name}{tail}"


def publish(run: str, name: str, alias: str | None) -> Published:
    """Register the model of a run (its name or id) as a new version of `name`.

    Raises:
        TrackingError: if there is no such run, or it logged no model.
    """
    return Published(name, tracking.register(tracking.find_run(run), name, alias), alias)
