"""The report of a sweep, read from MLflow: beside the paper's tables."""
