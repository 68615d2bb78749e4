"""The console script `dpt`, and what it checks first: that the four packages are those of this distribution.

Others publish packages named `dpt`, `tune` and `pipelines`, which take their place if they are installed in
the same environment, or lie earlier on Python's path.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

PACKAGES = ("datasets_prep", "dpt", "pipelines", "tune")
_WAY_OUT = "install dpt-on-ray into an environment of its own (python -m venv), without PYTHONPATH"


def clash() -> str | None:
    """Which package is not of this distribution, in one line; None if all are."""
    import importlib.metadata  # half of the time in which a signal meets no handler of ours

    # No other distribution is known to have a package of this name.
    ours = _folder_of("datasets_prep")
    for package in PACKAGES:
        folder = _folder_of(package)
        if folder is None or ours is None or folder.parent != ours.parent:
            found = f"hidden by the one in {folder}" if folder else "missing"
            return f"the package {package} of dpt-on-ray is {found}: {_WAY_OUT}"
    for file in importlib.metadata.files("dpt-on-ray") or ():
        # A source tree's list of files has no sizes.
        if file.size is not None and str(file) in {f"{package}/__init__.py" for package in PACKAGES}:
            path = Path(str(file.locate()))
            if not path.is_file() or path.stat().st_size != file.size:
                return f"{path} was replaced by another distribution's package {path.parent.name}: {_WAY_OUT}"
    return None


def _folder_of(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.origin).resolve().parent if spec and spec.origin else None


def _end(number: int, _: FrameType | None) -> None:
    """End at once: libraries are being imported, and nothing has begun."""
    os.write(2, f"dpt: stopped by {signal.Signals(number).name}; nothing was begun\n".encode())
    os._exit(128 + number)


def main() -> None:
    """Run the command line `dpt`; until `pipelines.cluster.signals` takes them, signals end it here."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    if problem := clash():
        sys.exit(f"dpt: {problem}")
    from tune.cli import main as run

    run()


if __name__ == "__main__":
    main()
