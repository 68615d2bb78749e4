"""`dpt train` whose MLflow server is away for a while, or for good."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.faulty_training import DISTURBED_AT, STEPS, Place, end_of, wait_until
from tests.support.mlflow_server import MlflowServer

pytestmark = [pytest.mark.fault, pytest.mark.ray, pytest.mark.slow]

AWAY = "MLflow takes no metrics"


@pytest.fixture
def server(mlflow_template: Path, tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path, mlflow_template)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def tracked(server: MlflowServer, place: Place, tmp_path: Path) -> Place:
    """The same place, tracked by the server."""
    where = {"MLFLOW_TRACKING_URI": server.address}
    return replace(place, database=tmp_path / "mlflow.db", environment=where)


def test_a_server_that_comes_back_gets_the_whole_curve(undisturbed, server, tracked):
    with tracked.training("away") as (process, log):
        tracked.wait_for_checkpoint("away", process, log)
        server.kill()
        wait_until(lambda: AWAY in log.read_text(), process, log)
        server.start()
        printed = end_of(process, log)
    assert "MLflow takes metrics again" in printed
    assert tracked.curve("away") == undisturbed


def test_a_run_whose_server_is_gone_is_completed_when_there_is_one_again(undisturbed, server, tracked):
    with tracked.training("gone") as (process, log):
        tracked.wait_for_checkpoint("gone", process, log)
        server.kill()
        printed = end_of(process, log, code=1)
    assert f"step {STEPS}/{STEPS}  loss" in printed
    assert "metrics have not reached MLflow; `dpt train --resume` sends them" in printed
    assert f"dpt: MLflow at {server.address} does not answer" in printed
    assert len(tracked.curve("gone")) < STEPS
    assert len(tracked.curve("gone")) >= DISTURBED_AT - 2
    server.start()
    assert "model: models:/" in tracked.train_to_the_end("gone", "--resume")
    assert tracked.curve("gone") == undisturbed
