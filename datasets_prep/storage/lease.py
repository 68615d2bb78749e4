"""One owner of a folder at a time: a lease, which its owner renews while it works.

Leases are numbered files. The creation of a file that does not exist yet is all that disks and object stores
alike do atomically, so whoever takes over a lease creates the file of the next number: of several, one
succeeds, and the highest number counts.

A lease is over when its file is gone, when the process that took it is gone from this machine, or when its
text has not changed for `STALE` seconds by the clock of whoever waits: machines' clocks need not agree.
"""

import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from datasets_prep.errors import UserError, one_line
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import StorageFailed
from datasets_prep.storage.sealed import DamagedFile, sealed, unsealed

RENEWAL, STALE = 3.0, 10.0
"""Seconds between renewals, and without one until a lease is over."""

_NAME = re.compile(r"lease-(\d{8})\.json")


class Owned(UserError):
    """A folder that another process works in; the message says which, and since when."""


@contextmanager
def owning(
    folder: Folder, what: str, show: Callable[[str], None], lost: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Own `folder` while the block runs; nested use by one process is refused like another's.

    Args:
        folder: local or remote; made if it does not exist.
        what: is done in it, for messages: `run demo`.
        show: called with a line if an owner elsewhere has to be watched first.
        lost: called, from another thread, with a line if the lease was taken over, because this process stood
            still for `STALE` seconds; None ends the process at once, before it writes over the other's work.

    Raises:
        Owned: if another process owns it.
    """
    lease = _take(folder, what, show)
    ended = threading.Event()
    renewing = threading.Thread(target=lease.renew, args=(ended, lost or _end_process), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with suppress(OSError):  # it ends by itself
            lease.folder.remove(lease.name)
        if folder.is_local:
            with suppress(OSError):  # unless it is still empty
                os.rmdir(folder.path)


@dataclass(frozen=True, slots=True)
class _Lease:
    """Lease number `number` of a `folder`, taken by this process for `what`; `text` says so."""

    folder: Folder
    number: int
    what: str
    text: dict[str, object]

    @property
    def name(self) -> str:
        return _name(self.number)

    def renew(self, ended: threading.Event, lost: Callable[[str], None]) -> None:
        """Change the text until `ended`; call `lost` if there is a newer lease."""
        while not ended.wait(RENEWAL):
            with suppress(StorageFailed, OSError):  # the next renewal may succeed
                if max(_numbers(self.folder), default=0) > self.number:
                    other = _text_of(self.folder, max(_numbers(self.folder)))
                    lost(f"{self.what}: {_owner(other or {})} has taken over {self.folder.uri}")
                    return
                self.folder.write_text(self.name, sealed({**self.text, "renewed": time.time()}))


def _take(folder: Folder, what: str, show: Callable[[str], None]) -> _Lease:
    text = {
        "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(),
        "started": psutil.Process().create_time(), "since": time.time(), "id": uuid.uuid4().hex,
    }  # fmt: skip
    while True:
        newest = max(_numbers(folder), default=0)
        if newest and not _is_over(folder, newest, what, show):
            continue
        lease = _Lease(folder, newest + 1, what, text)
        if folder.create_text(lease.name, sealed(text)):
            if max(_numbers(folder)) == lease.number:
                break
            folder.remove(lease.name)
    for number in _numbers(folder):
        if number < lease.number:
            folder.remove(_name(number))
    return lease


def _is_over(folder: Folder, number: int, what: str, show: Callable[[str], None]) -> bool:
    """Whether lease `number` is over but still there; raises Owned as soon as it is known not to be over."""
    before = _text_of(folder, number)
    if before is None:
        return False
    problem = f"{what} is in use by {_owner(before)} ({folder.uri})"
    if before.get("machine") == _machine():
        if _is_running(before):
            raise Owned(f"{problem}: wait until it has ended, or stop it")
        return True
    show(f"{problem}: waiting {STALE:.0f} s to see whether it still works")
    until = time.monotonic() + STALE
    while time.monotonic() < until:
        time.sleep(0.25)
        text = _text_of(folder, number)
        if text is None:
            return False
        if text != before:
            raise Owned(f"{problem}, which still works: wait until it has ended, or stop it")
    return True


def _numbers(folder: Folder) -> list[int]:
    return [int(match[1]) for name in folder.children() if (match := _NAME.fullmatch(name))]


def _name(number: int) -> str:
    return f"lease-{number:08d}.json"


def _text_of(folder: Folder, number: int) -> dict[str, object] | None:
    """What a lease says; None if it is gone, empty if it is damaged, so that it counts as never renewed."""
    try:
        return unsealed(folder.read_bytes(_name(number)), _name(number))
    except FileNotFoundError:
        return None
    except DamagedFile:
        return {}


def _owner(text: dict[str, object]) -> str:
    """Who took a lease, and when."""
    since = text.get("since")
    if not isinstance(since, (int, float)):
        return "another process"
    age = max(0, round((time.time() - since) / 60))
    local = datetime.fromtimestamp(since, timezone.utc).astimezone()
    return f"process {text.get('pid')} on {text.get('host')} since {local:%Y-%m-%d %H:%M} ({age} minutes)"


def _machine() -> str:
    """What tells this start of this machine, or container, from all others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")  # a container's processes have numbers of their own
    parts = [socket.gethostname(), boot.read_text().strip() if boot.exists() else str(psutil.boot_time())]
    return "/".join([*parts, os.readlink(space) if space.is_symlink() else ""])


def _is_running(text: dict[str, object]) -> bool:
    """Whether the process that took a lease, on this machine, still runs."""
    try:
        process = psutil.Process(int(str(text["pid"])))
        return process.create_time() == text["started"] and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError):
        return False


def _end_process(line: str) -> None:
    line = one_line(f"dpt: {line}; this process ends without writing anything more")
    print(line, file=sys.stderr, flush=True)
    os._exit(1)
