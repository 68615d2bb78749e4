"""The jobs: prepare, train, evaluate, predict, publish."""
