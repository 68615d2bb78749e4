"""The sampling plan executed: rows → crops → batches. Blocks load without PyTorch, Ray, MLflow."""
