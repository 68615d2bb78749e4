"""What a cluster can reach: `dpt submit` runs it there first, as `python -m pipelines.cluster.probe JSON`.

It imports a library only where it checks with it, so that a missing one is reported rather than a crash. The
answer is one line that starts with `MARK`, since a job's log has lines of Ray's too.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import asdict, dataclass, field
from pathlib import Path

MARK = "dpt-probe:"
_ANSWER_SECONDS = 30
_OK, _UNAUTHORIZED, _FORBIDDEN = 200, 401, 403


@dataclass(frozen=True, slots=True)
class Targets:
    """What a job needs to reach.

    Attributes:
        reads, writes: folders to read from and to write to; paths or URIs.
        tracking: MLflow's tracking URI, of a server or database, without credentials: a job's command is
            shown to all users of the cluster. None if the job does not track.
    """

    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    tracking: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """Outcome of a probe: the cluster's `python` version (`3.11`), and `problems`, one line each."""

    python: str
    problems: list[str]


def probe(targets: Targets, seconds: float = _ANSWER_SECONDS) -> Findings:
    """Check all `targets` in parallel; one that does not answer within `seconds` is a problem too."""
    checks: list[tuple[str, Callable[[str], str | None]]] = [
        *((uri, unreadable) for uri in targets.reads),
        *((uri, unwritable) for uri in targets.writes),
        *([(targets.tracking, untracked)] if targets.tracking else []),
    ]
    problems = [] if shutil.which("dpt") else ["the command dpt is not installed on the cluster"]
    pool = ThreadPoolExecutor(max_workers=max(1, len(checks)))
    answers = [(target, pool.submit(_guarded, check, target)) for target, check in checks]
    for target, answer in answers:
        try:
            problem = answer.result(timeout=seconds)
        except OutOfTime:
            problem = f"no answer within {seconds:.0f} s"
        if problem:
            problems.append(f"{target}: {problem}")
    pool.shutdown(wait=False, cancel_futures=True)
    return Findings(".".join(platform.python_version_tuple()[:2]), problems)


def unreadable(uri: str) -> str | None:
    """Why the folder `uri` cannot be read from; None if it can."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(uri)
    return None if fs.exists(path) else "no such folder"


def unwritable(uri: str) -> str | None:
    """Why the folder `uri`, which need not exist, cannot be written to; None if it can."""
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    fs, path = fsspec.core.url_to_fs(uri)
    if isinstance(fs, LocalFileSystem):
        there = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
        return None if there.is_dir() and os.access(there, os.W_OK) else f"no right to write in {there}"
    mark = f"{path.rstrip('/')}/.dpt-probe-{uuid.uuid4().hex}"
    fs.pipe_file(mark, b"")
    fs.rm_file(mark)
    return None


def untracked(uri: str) -> str | None:
    """Why MLflow at `uri` cannot be used; None if it can, or for a kind of URI that is not checked here."""
    import requests
    from sqlalchemy.engine import make_url

    from pipelines.cluster.credentials import with_credentials

    uri = with_credentials(uri)
    if uri.startswith("sqlite:///"):
        return unwritable(str(Path(str(make_url(uri).database)).parent))
    if not uri.startswith(("http://", "https://")):
        return None
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    status = requests.get(
        f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search",
        params={"max_results": "1"},
        headers={"Authorization": f"Bearer {token}"} if token else {},
        auth=(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None,
        timeout=_ANSWER_SECONDS,
    ).status_code
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return "refuses this user, or the name it is called by (the server's --allowed-hosts)"
    return None if status == _OK else f"answers with status {status}, which MLflow does not"


def _guarded(check: Callable[[str], str | None], target: str) -> str | None:
    try:
        return check(target)
    except Exception as error:  # storage libraries raise their own
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    print(MARK, json.dumps(asdict(probe(Targets(**json.loads(sys.argv[1]))))), flush=True)
    # Threads that still wait for an answer would keep the process alive.
    os._exit(0)
