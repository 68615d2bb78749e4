"""Inputs and outputs of `dpt predict`: images, videos, depth files."""
