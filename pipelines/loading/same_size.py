"""Batches of images of one size, of images of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class SameSizeBatches(Generic[Item]):
    """Batches of items of one size: items wait for others of their size, so that batches are mostly full.

    Args:
        batch_size: the most items of a batch.
        most_pixels: the most pixels of a batch (but at least one item); None for no limit.
        most_waiting: the most items that wait; then the largest incomplete batch is due. None for no limit.
    """

    def __init__(
        self, batch_size: int, most_pixels: int | None = None, most_waiting: int | None = None
    ) -> None:
        self._batch_size, self._most_pixels, self._most_waiting = batch_size, most_pixels, most_waiting
        self._waiting: dict[tuple[int, int], list[Item]] = {}
        self._seen: dict[tuple[int, int], None] = {}

    def add(self, item: Item, size: tuple[int, int]) -> list[Item]:
        """The batch that is due after `item` of `size` (height, width) in pixels; empty if none is."""
        most = self._batch_size
        if self._most_pixels is not None:
            most = min(most, max(1, self._most_pixels // (size[0] * size[1])))
        self._seen[size] = None
        same = self._waiting.setdefault(size, [])
        same.append(item)
        if len(same) == most:
            return self._waiting.pop(size)
        if self._most_waiting is not None and sum(map(len, self._waiting.values())) >= self._most_waiting:
            return self._waiting.pop(max(self._waiting, key=lambda size: len(self._waiting[size])))
        return []

    def rest(self) -> Iterator[list[Item]]:
        """The incomplete batches, in the order in which their sizes first appeared."""
        return (self._waiting[size] for size in self._seen if size in self._waiting)

    def of(self, items: Iterable[Item], size: Callable[[Item], tuple[int, int]]) -> Iterator[list[Item]]:
        """All batches of `items`; `size` gives the (height, width) of one."""
        for item in items:
            if batch := self.add(item, size(item)):
                yield batch
        yield from self.rest()
