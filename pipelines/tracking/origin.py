"""Where a run comes from, in MLflow's own tags and in ours: user, command, commit, machine, Ray job."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import sys
from pathlib import Path

import ray
from mlflow.entities import SourceType
from mlflow.utils import mlflow_tags as names

from pipelines.cluster.ray_private import job_metadata
from pipelines.tracking.source_commit import DIRTY, source_commit

_LONGEST_TAG = 5000


def origin_tags(job: str) -> dict[str, str]:
    """Tags of a run of the command `job` that this process starts.

    `host` and `ray_job` are ours (that is the submission id, else Ray's id of this driver); `git_commit` is
    the commit with `-dirty`. The others are those that `mlflow.start_run` sets, which its page shows.
    """
    commit, submitted = source_commit(), job_metadata().get("job_submission_id")
    tags = {
        names.MLFLOW_USER: _user(),
        names.MLFLOW_SOURCE_NAME: shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_LONGEST_TAG],
        names.MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.JOB if submitted else SourceType.LOCAL),
        names.MLFLOW_PROJECT_ENTRY_POINT: job,
        names.MLFLOW_GIT_COMMIT: commit.removesuffix(DIRTY),
        names.MLFLOW_GIT_DIRTY: str(commit.endswith(DIRTY)).lower(),
        "git_commit": commit,
        "host": platform.node(),
    }
    if submitted or ray.is_initialized():
        tags["ray_job"] = submitted or ray.get_runtime_context().get_job_id()
    return tags


def _user() -> str:
    """Name at the MLflow server, else of the login; `dpt submit` sends the submitter's as LOGNAME."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        return "unknown"
