"""MLflow's database on this machine: made by one process at a time, and waited for while it is busy."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url

BUSY_SECONDS = 60
"""How long a write waits for those of other processes; SQLite's own 5 s are short of a sweep's."""


def local_store(folder: Path) -> str:
    """Tracking URI of the database in a local `folder`; characters such as `?` are escaped."""
    return URL.create("sqlite", database=str(folder / "mlflow.db")).render_as_string(hide_password=False)


def database_of(uri: str) -> Path | None:
    """The file of an SQLite database with the tracking `uri`; None for another kind of store."""
    file = make_url(uri).database if uri.startswith("sqlite:///") else None
    return Path(file).absolute() if file else None


@contextmanager
def alone_with(database: Path | None) -> Iterator[None]:
    """Other processes wait for this block: MLflow creates and migrates a `database` without a lock.

    The lock is on its folder, or what there is of it, so that no file is left.
    """
    if database is None:
        yield
        return
    descriptor = os.open(next(folder for folder in database.parents if folder.is_dir()), os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@cache
def wait_for_busy_databases() -> None:
    """Have all of this process's SQLite connections wait `BUSY_SECONDS` for other processes."""

    @event.listens_for(Engine, "connect")
    def wait(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")
