"""Placement groups of dead trials that never trained."""

import time

import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table

from tune.scheduling import removing_orphans

FAR_AWAY = [{"resource_that_no_machine_has": 1}]


@ray.remote(num_cpus=0)
class Controller:
    """Asks for what it will not get."""

    def ask(self) -> PlacementGroup:
        return placement_group(FAR_AWAY)


def state_of(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


@pytest.mark.usefixtures("ray_session")
def test_only_those_whose_maker_is_dead_are_removed():
    mine = placement_group(FAR_AWAY)
    dying, living = Controller.remote(), Controller.remote()
    orphan, waiting = ray.get([dying.ask.remote(), living.ask.remote()])
    ray.kill(dying)
    time.sleep(1)
    assert state_of(orphan) == "PENDING", "Ray removes them by itself: `removing_orphans` is obsolete"
    with removing_orphans(seconds=0.2):
        deadline = time.monotonic() + 30
        while state_of(orphan) != "REMOVED":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert state_of(waiting) == state_of(mine) == "PENDING"
    for group in (mine, waiting):
        ray.util.remove_placement_group(group)
