"""Stages of `dpt label`: pictures found, read, predicted, compared and written as shards."""
