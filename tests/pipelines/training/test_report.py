"""What a run logs does not show where it was interrupted."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.config import TrainConfig
from pipelines.training.checkpoint import TrainingState, read_state, state_text
from pipelines.training.host_copy import HostCopy
from pipelines.training.ranks import Ranks
from pipelines.training.report import TrainingReport
from pipelines.training.step import StepResult
from tests.support.models import batch_of

LOSSES = torch.rand(10, generator=torch.Generator().manual_seed(0))
BATCH = batch_of(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.zeros(1, 4, 4), [0])


class Kept:
    """A journal that keeps what it is given."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.losses[step] = metrics["loss"]


NOT_SKIPPED = HostCopy(torch.zeros(3, dtype=torch.bool))


def report_from(state: TrainingState, journal: Kept) -> TrainingReport:
    dataset: Any = SimpleNamespace(name="redweb", manifest=SimpleNamespace(samples={}))
    config = TrainConfig(steps=10, precision="float32")
    return TrainingReport(config, [dataset], journal, print, torch.device("cpu"), 1.0, Ranks(), state, "mine")


def run(report: TrainingReport, start: int, stop: int) -> None:
    for step in range(start + 1, stop + 1):
        report.count(
            step, StepResult(LOSSES[step - 1], HostCopy(torch.zeros(3, dtype=torch.bool)), ["a", "b"]), BATCH
        )
        if step % 5 == 0:
            report.log(step)


@pytest.mark.heavy
def test_a_restart_between_two_logged_steps_changes_no_mean():
    whole, parts = Kept(), Kept()
    run(report_from(TrainingState(0), whole), 0, 10)
    first = report_from(TrainingState(0), parts)
    run(first, 0, 8)
    state = TrainingState(8, seen=first.seen_samples(), unlogged=first.unlogged())
    run(report_from(read_state(state_text(state), "step_8"), parts), 8, 10)
    assert whole.losses.keys() == {5, 10}
    assert parts.losses == whole.losses
    assert parts.losses[10] == LOSSES[5:].double().mean().item()
