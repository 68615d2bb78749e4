"""Folders on local disk and object stores: reading, atomic writing, listing, retries."""
