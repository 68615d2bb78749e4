"""Which sample is the n-th of a run: pure functions, NumPy only."""
