"""Verification, statistics and pictures of prepared datasets: `dpt inspect`."""
