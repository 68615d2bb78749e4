"""Actors that Ray replaces are named, each time one line."""

from pipelines.cluster import actors


def test_each_actor_that_dies_in_the_block_is_one_line(monkeypatch):
    restarts = {"before": ("Reader", 1)}
    monkeypatch.setattr(actors, "restarted_actors", lambda: dict(restarts))
    said: list[str] = []
    with actors.saying_which_actors_died(said.append, seconds=600):
        restarts |= {"before": ("Reader", 2), "new": ("Labeller", 1)}
    assert sorted(line.partition(" died: ")[0] for line in said) == [
        "a process of Labeller",
        "a process of Reader",
    ]


def test_a_death_is_said_while_the_block_runs(monkeypatch):
    restarts: dict[str, tuple[str, int]] = {}
    monkeypatch.setattr(actors, "restarted_actors", lambda: dict(restarts))
    said: list[str] = []
    with actors.saying_which_actors_died(said.append, seconds=0.001):
        restarts["one"] = ("Reader", 1)
        while not said:
            pass
    assert len(said) == 1
