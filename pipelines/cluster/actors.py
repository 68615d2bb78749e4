"""Actors of Ray Data that die, in one line each: Ray replaces them, and repeats tasks, without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.cluster.polling import polling
from pipelines.cluster.ray_private import restarted_actors
from pipelines.terminal import echo


@contextmanager
def saying_which_actors_died(say: Callable[[str], None] = echo, seconds: float = 2.0) -> Iterator[None]:
    """Tell `say`, in the block, of each actor that Ray replaces; looks every few `seconds`, and last."""
    told = {actor: restarts for actor, (_, restarts) in restarted_actors().items()}

    def look() -> None:
        for actor, (kind, restarts) in restarted_actors().items():
            if restarts > told.get(actor, 0):
                told[actor] = restarts
                say(f"a process of {kind} died: Ray starts another, which repeats what was not finished")

    with polling(look, seconds):
        yield
    look()
