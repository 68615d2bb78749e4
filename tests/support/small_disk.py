"""A file system that is soon full, in a mount namespace of its own, for which nobody has to be root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A file system that commands after `before` find mounted at `inside`; for us it is `outside`."""

    before: list[str]
    inside: Path
    outside: Path

    def fill(self, left: int = 0) -> None:
        """Fill it until `left` bytes are free."""
        space = os.statvfs(self.outside)
        size = space.f_bavail * space.f_frsize - left
        with (self.outside / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def clear(self) -> None:
        """Make room again."""
        (self.outside / "ballast").unlink()


@contextmanager
def mounted(folder: Path, mebibytes: int = 96) -> Iterator[SmallDisk]:
    """A disk of `mebibytes`, mounted in `folder`; the test is skipped where nobody may mount one."""
    inside = folder / "disk"
    inside.mkdir()
    mount = f"mount -t tmpfs -o size={mebibytes}m none {inside} && echo mounted && exec sleep infinity"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline().strip() != "mounted":
                pytest.skip("this machine lets nobody mount a file system of his own")
            options = ("--user", "--mount", "--preserve-credentials", "--wd")
            enter = ["nsenter", f"--target={holder.pid}", *options]
            yield SmallDisk(enter, inside, Path(f"/proc/{holder.pid}/root{inside}"))
        finally:
            holder.kill()
