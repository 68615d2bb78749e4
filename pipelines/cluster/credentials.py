"""User names and passwords in a tracking URI (`postgresql://user:password@host/mlflow`) stay in this process.

They are taken out of all that is printed or written; a process that reads such a URI back puts in those of
its own MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import os
import re

_USER_AND_PASSWORD = re.compile(r"(?<=://)[^\s/@:]*(?::\S*)?@")
"""Up to the last `@` of the word: a password may hold one, or a slash, unescaped."""

_IN_QUERY = re.compile(r"(?<=[?&])(user|username|password|passwd|token)=[^&\s]*", re.IGNORECASE)
"""Databases also take them as `?user=…&password=…`."""


def without_credentials(text: str) -> str:
    """`text`, a URI or a message with some, without user names and passwords."""
    return _IN_QUERY.sub(r"\1=…", _USER_AND_PASSWORD.sub("", text))


def with_credentials(uri: str) -> str:
    """Inverse of `without_credentials` for a tracking `uri`, if MLFLOW_TRACKING_URI names the same store."""
    here = os.environ.get("MLFLOW_TRACKING_URI", "")
    return here if here and without_credentials(here) == uri else uri
