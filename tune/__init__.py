"""Sweeps over the jobs of `pipelines`."""
