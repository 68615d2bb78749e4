"""Retries: a storage failure does not make a sample bad; it is retried, and then the job stops.

Client libraries retry errors that they know to be transient (s3fs and botocore: 500, 503, slow answers,
broken connections; `AWS_MAX_ATTEMPTS` sets how often). Other errors are retried here, by one rule for every
file system: a definite error about the file (missing, a folder, not allowed) is raised at once, any other
after `len(PAUSES) + 1` attempts.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from datasets_prep.errors import UserError

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Mean seconds to wait after each failed attempt except the last."""

_JITTER = (0.5, 1.5)
"""Factors of a pause, drawn uniformly: of a thousand throttled workers not all must return at once."""

DEFINITE = (
    *(FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError),
    *(TypeError, ValueError, NotImplementedError),
)
"""Errors that are an answer, which no other attempt changes."""

Result = TypeVar("Result")


class StorageFailed(UserError, OSError):
    """A storage operation failed in every attempt; the samples themselves may be good."""


class CannotWrite(StorageFailed):
    """Only the user can make it writable: a full disk, no permission, a file in the place of a folder."""


def persistently(action: str, operation: Callable[..., Result], path: str, **options: object) -> Result:
    """The result of `operation(path, **options)`, a storage request, which is retried if it fails.

    `action` is a past participle for the message: `read`, `written`, `listed`. Raises StorageFailed if every
    attempt fails with an indefinite error; OSError as raised by the operation, if the error is definite.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            return operation(path, **options)
        except DEFINITE as error:  # noqa: PERF203 (each turn waits for storage)
            if isinstance(error, OSError) and error.filename is None:
                error.filename, error.strerror = path, error.strerror or str(error)  # object stores name none
            raise
        except Exception as error:
            # Every client library has its own errors.
            pause = next(pauses, None)
            if pause is None:
                reason = f"{type(error).__name__}: {error}"
                message = f"{path} cannot be {action}, tried {len(PAUSES) + 1} times: {reason}"
                raise StorageFailed(message) from error
            time.sleep(pause * random.uniform(*_JITTER))
