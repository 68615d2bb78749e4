"""Memory for blocks, used again as soon as nobody looks at what was in it.

Fresh pages cost as much time as half of the decoding, so a process that makes blocks keeps their memory. The
last bytes of each piece say whether it is in use; where the training process maps the piece, it clears them
itself when the last tensor over it is gone. So batches are views, nothing is copied, and who keeps a batch
keeps its memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Memory = NDArray[np.uint8]

_MARK = 8
"""Bytes behind each block that say whether it is in use."""


class BlockMemory:
    """Pieces of memory for blocks.

    Args:
        make: makes one: so many bytes, uint8.
    """

    def __init__(self, make: Callable[[int], Memory]) -> None:
        self._make = make
        self._pieces: list[Memory] = []

    def take(self, size: int) -> Memory:
        """A piece with room for so many bytes and their mark, in use from now on until it is released."""
        for index, piece in enumerate(self._pieces):
            if not piece[-1]:
                if len(piece) < size + _MARK:
                    piece = self._pieces[index] = self._make(size + _MARK)
                break
        else:
            piece = self._make(size + _MARK)
            self._pieces.append(piece)
        piece[-1] = 1
        return piece


def own_memory(size: int) -> Memory:
    """Memory of this process."""
    return np.empty(size, np.uint8)


def release(piece: Memory) -> None:
    """Allow that the piece is taken again."""
    piece[-1] = 0


def released_with(piece: Memory, size: int) -> Memory:
    """The first `size` bytes of a piece, which is released when they are gone.

    What is made of them must hold this very array, as tensors do: a NumPy view holds the whole piece instead.
    """
    content = piece[:size]
    weakref.finalize(content, release, piece).atexit = False
    return content
