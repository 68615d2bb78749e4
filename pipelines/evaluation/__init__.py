"""Metrics on prepared datasets, and the paper's tables they are compared with."""
