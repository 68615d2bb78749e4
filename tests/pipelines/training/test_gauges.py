"""The dashboard of `docs/grafana.json` shows every gauge that there is, and no other."""

import json
import re
from typing import Any, ClassVar

import pytest

from datasets_prep.ingest.gauges import IngestGauges
from datasets_prep.progress import Progress
from pipelines.training import gauges
from tests.support.paths import REPOSITORY


class Kept:
    """A gauge that keeps what it is set to, as `ray.util.metrics.Gauge` exports it."""

    values: ClassVar[dict[tuple[str, ...], float]] = {}

    def __init__(self, name: str, description: str, keys: tuple[str, ...]) -> None:
        assert description
        self._name, self._keys, self._tags = name, set(keys), {}

    def set_default_tags(self, tags: dict[str, str]) -> "Kept":
        self._tags = tags
        return self

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        tags = {**self._tags, **(tags or {})}
        assert tags.keys() == self._keys
        self.values[(self._name, *tags.values())] = value


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    monkeypatch.setattr(Kept, "values", {})
    monkeypatch.setattr(gauges, "Gauge", Kept)
    monkeypatch.setattr("datasets_prep.ingest.gauges.Gauge", Kept)
    return Kept.values


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((REPOSITORY / "docs" / "grafana.json").read_text())
    return board


def test_every_gauge_is_in_the_dashboard_and_every_metric_of_it_in_the_code(kept):
    train = gauges.TrainingGauges("mine")
    train.set(7, dict.fromkeys(gauges._GAUGES, 0.5), {"redweb": 3, "diml": 4})
    IngestGauges("redweb").set(Progress(10, 20, 2))
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    named = [re.findall(r"ray_(dpt_\w+)\{", expression) for expression in shown]
    assert all(len(names) == 1 for names in named)
    assert {name for [name] in named} == {key[0] for key in kept}
    asked = {
        name
        for one in dashboard()["templating"]["list"]
        for name in re.findall(r"ray_(dpt_\w+)", one["query"])
    }
    assert asked <= {key[0] for key in kept}


def test_gauges_have_the_values_of_the_log_by_run_and_dataset(kept):
    train = gauges.TrainingGauges("mine")
    train.set(7, {"loss": 0.5, "share/redweb": 0.2, "skipped_steps": 1.0}, {"redweb": 3, "diml": 4})
    assert kept == {
        ("dpt_train_step", "mine"): 7, ("dpt_train_loss", "mine"): 0.5,
        ("dpt_train_skipped_steps", "mine"): 1.0, ("dpt_train_samples", "mine", "redweb"): 3,
        ("dpt_train_samples", "mine", "diml"): 4,
    }  # fmt: skip


def test_an_ingest_says_how_fast_it_is(kept, monkeypatch):
    clock = iter([100.0, 104.0])
    monkeypatch.setattr("datasets_prep.ingest.gauges.time.monotonic", lambda: next(clock))
    IngestGauges("redweb").set(Progress(10, 20, 2))
    assert kept == {
        ("dpt_ingest_images", "redweb"): 10, ("dpt_ingest_quarantined", "redweb"): 2,
        ("dpt_ingest_images_per_second", "redweb"): 2.5,
    }  # fmt: skip
