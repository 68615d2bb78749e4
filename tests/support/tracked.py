"""What MLflow has of a run."""

from mlflow import MlflowClient
from mlflow.entities import Run


def find_run(name: str, tracking_uri: str | None = None) -> Run:
    """The run of that name."""
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("dpt")
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return run


def curve(run: Run, metric: str = "loss", tracking_uri: str | None = None) -> list[tuple[int, float]]:
    """Steps and values of a metric, duplicates included."""
    history = MlflowClient(tracking_uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)
