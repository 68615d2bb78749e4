"""Storage that fails is not a sample that is bad: it is asked again, and then the job stops.

Client libraries retry by themselves what they know to pass (s3fs and botocore: 500, 503, slow answers,
broken connections; `AWS_MAX_ATTEMPTS` says how often). What still comes through is tried again here, by one
rule for every file system: an error that says something definite about the file (not there, a folder, not
allowed) is believed, any other is not until it has come `len(PAUSES) + 1` times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from datasets_prep.errors import UserError

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds to wait after each failed try but the last."""

_DEFINITE = (
    *(FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError),
    *(TypeError, ValueError, NotImplementedError),
)

Result = TypeVar("Result")


class StorageFailed(UserError, OSError):
    """Storage did not do what was asked, however often; the samples themselves may be good."""


def persistently(action: str, where: str, operation: Callable[[], Result]) -> Result:
    """Call `operation` until it succeeds.

    Args:
        action: what cannot be done if it never does, for the message: `read`, `written`, `listed`.
        where: the file or folder.

    Raises:
        StorageFailed: if it fails in an indefinite way after every pause too.
        OSError: as the operation raised it, if the error is definite.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            return operation()
        except _DEFINITE:  # noqa: PERF203 (each turn waits for storage)
            raise
        except Exception as error:
            # Every client library has errors of its own.
            pause = next(pauses, None)
            if pause is None:
                reason = f"{type(error).__name__}: {error}"
                message = f"{where} cannot be {action}, tried {len(PAUSES) + 1} times: {reason}"
                raise StorageFailed(message) from error
            time.sleep(pause)
