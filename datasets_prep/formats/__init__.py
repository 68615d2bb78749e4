"""Decoders from the bytes of a file to arrays; one file a format."""
