"""Everything MLflow: runs, metrics, the model registry."""
