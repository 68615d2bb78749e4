"""One training run on Ray Train: step, loop, checkpoints, reports."""
