"""Images predicted in batches of one network input size: a GPU computes one while the next is started."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from pipelines.loading.same_size import SameSizeBatches

_WAITING = 4
"""Images that wait for others of their size, in batches, before an incomplete batch is predicted."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Begun(Protocol[Result_co]):
    """A batch's predictions, which a GPU may still be computing."""

    @property
    def ready(self) -> bool:
        """Whether `arrays` returns at once."""

    def arrays(self) -> Sequence[Result_co]:
        """Wait for the predictions, one for each image."""


class Batched(Generic[Item, Result]):
    """Predicts items in batches.

    Args:
        launch: starts to predict a batch.
        size: height and width of the network's input for an item; None if it has none.
        batch_size: the most items of a batch.
    """

    def __init__(
        self,
        launch: Callable[[Sequence[Item]], Begun[Result]],
        size: Callable[[Item], tuple[int, int] | None],
        batch_size: int,
    ) -> None:
        self._launch, self._size = launch, size
        self._waiting = SameSizeBatches[Item](batch_size, most_waiting=_WAITING * batch_size)
        self._started: deque[tuple[list[Item], Begun[Result]]] = deque()

    def of(self, items: Iterable[Item]) -> Iterator[tuple[Item, Result | None]]:
        """All `items` with their predictions, batch by batch; those without a size with None.

        Of the latter each comes as soon as all batches that were started before it are done.
        """
        for item in items:
            size = self._size(item)
            if size is None:
                yield from self._ended(most=0)
                yield item, None
                continue
            if batch := self._waiting.add(item, size):
                self._started.append((batch, self._launch(batch)))
            yield from self._ended(most=1)
        for batch in self._waiting.rest():
            self._started.append((batch, self._launch(batch)))
            yield from self._ended(most=1)
        yield from self._ended(most=0)

    def _ended(self, most: int) -> Iterator[tuple[Item, Result]]:
        """The batches that are done; at `most` so many are left."""
        while len(self._started) > most or (self._started and self._started[0][1].ready):
            batch, begun = self._started.popleft()
            yield from zip(batch, begun.arrays(), strict=True)
