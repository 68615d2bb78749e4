"""The first request of a command to remote storage: if nothing answers, that is one line within seconds.

Client libraries try again for minutes, as a job needs in its middle; not so a laptop without network.
"""

import logging
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from threading import Thread
from typing import Any

from datasets_prep.storage.retries import DEFINITE, StorageFailed, persistently

SECONDS = 15.0
"""Within which storage must have answered."""

_TALKATIVE = ("gcsfs", "google", "azure")
"""Loggers that print a traceback or a page of advice for each attempt, and raise it as well."""

_WAY_OUT = "check the network, the endpoint and the credentials"
_reached: set[str] | None = None


@contextmanager
def required() -> Iterator[None]:
    """In the block, that of a command, each bucket must answer when it is first named."""
    global _reached
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _reached = set()
    try:
        yield
    finally:
        _reached = None


def opened(uri: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The fsspec file system of a `uri`, made with these `options`, and the path on it.

    Raises StorageFailed if an answer is required and does not come; other errors as fsspec.
    """
    import fsspec

    bucket, found = "/".join(uri.split("/")[:3]), futures.Future[tuple[Any, str]]()
    if "://" not in uri or _reached is None or bucket in _reached:
        return fsspec.core.url_to_fs(uri, **options)
    problems: list[str] = []

    def ask() -> None:
        def exists(path: str) -> None:
            try:
                fs.exists(path)
            except Exception as error:
                problems.append(f": {type(error).__name__}: {' '.join(str(error).split())}"[:300])
                raise

        try:
            fs, root = fsspec.core.url_to_fs(uri, **options)
            try:
                persistently("reached", exists, root)
            except StorageFailed:
                raise
            except DEFINITE:  # an answer, which the next request explains
                pass
            found.set_result((fs, root))
        except Exception as error:
            found.set_exception(error)

    Thread(target=ask, daemon=True).start()  # which no exit waits for
    try:
        result = found.result(SECONDS)
    except (futures.TimeoutError, StorageFailed) as error:
        why = problems[-1] if problems else f" within {SECONDS:.0f} s"
        raise StorageFailed(f"{uri}: storage does not answer{why}; {_WAY_OUT}") from error
    _reached.add(bucket)
    return result
