"""Rendered scenes with exact depth: the content of generated datasets."""
