"""Placement groups whose trial has died before it trained.

When a training's controller dies, Ray Train removes the placement group of its processes, but only if these
had started (`PlacementGroupCleaner` is told then). One that was still waiting for cores would be given the
next that are free, and hold them as long as the sweep lasts, with nobody to use them: no trial could go on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.util.placement_group import PlacementGroup, remove_placement_group

_SECONDS = 5.0


@contextmanager
def removing_orphans(seconds: float = _SECONDS) -> Iterator[None]:
    """Inside the block, look every few seconds for orphans of this job, and remove them."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            for group in _orphans():
                remove_placement_group(group)

    thread = threading.Thread(target=watch, name="orphans", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _orphans() -> list[PlacementGroup]:
    """Those that actors of this job have made that are dead."""
    job = ray.get_runtime_context().get_job_id()
    # The public table does not tell who made a group.
    tables = state._connect_and_get_accessor().get_placement_group_table()
    groups = [PlacementGroupTableData.FromString(table) for table in tables]
    return [
        PlacementGroup(ray.PlacementGroupID(group.placement_group_id))
        for group in groups
        if group.creator_job_id.hex() == job
        and group.creator_actor_dead
        and not ray.ActorID(group.creator_actor_id).is_nil()
        and not group.is_detached
        and group.state != PlacementGroupTableData.REMOVED
    ]
