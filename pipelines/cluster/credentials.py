"""User names, passwords, keys and tokens stay in this process: all that is printed or stored is without them.

They are those in URIs (`postgresql://user:password@host/mlflow`), those of known forms, and the values of
environment variables that are named as secrets. A process that reads a tracking URI back puts in the
credentials of its own MLFLOW_TRACKING_URI. Paths of data have none: `Folder` refuses them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TextIO

_USER_AND_PASSWORD = re.compile(r"(?<=://)[^\s/@:]*(?::\S*)?@")
"""Up to the last `@` of the word: a password may hold one, or a slash, unescaped."""

_IN_QUERY = re.compile(
    r"(?<=[?&])(user|username|password|passwd|token|sig|[\w-]*(?:signature|credential|accesskeyid|token))="
    r"[^&\s'\"]*",
    re.IGNORECASE,
)
"""Databases also take them as `?user=…&password=…`; signed URLs of object stores have keys and signatures."""

_TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|dapi[0-9a-f]{32}|(?:AKIA|ASIA)[A-Z0-9]{16})\b")
"""Of Hugging Face, Databricks, AWS."""

_SECRET_NAMES = ("PASSWORD", "TOKEN", "SECRET", "SECRET_ACCESS_KEY", "API_KEY")
_SHORTEST = 6
"""Characters of an environment variable's value that is looked for: shorter ones are parts of words."""


def without_credentials(text: str) -> str:
    """`text`, a URI or a message with some, without user names, passwords and tokens."""
    text = _TOKEN.sub("…", _IN_QUERY.sub(r"\1=…", _USER_AND_PASSWORD.sub("", text)))
    for name in os.environ:
        # MLflow's threads set and unset variables meanwhile.
        value = os.environ.get(name, "") if name.endswith(_SECRET_NAMES) else ""
        if len(value) >= _SHORTEST:
            text = text.replace(value, "…")
    return text


class WithoutCredentials:
    """A text `stream` to which all is written `without_credentials`; `before` is called before."""

    def __init__(self, stream: TextIO, before: Callable[[], None] = lambda: None) -> None:
        self._stream, self._before = stream, before

    def write(self, text: str) -> int:
        """Write `text`; returns its length."""
        self._before()
        self._stream.write(without_credentials(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def with_credentials(uri: str) -> str:
    """Inverse of `without_credentials` for a tracking `uri`, if MLFLOW_TRACKING_URI names the same store."""
    here = os.environ.get("MLFLOW_TRACKING_URI", "")
    return here if here and without_credentials(here) == uri else uri
