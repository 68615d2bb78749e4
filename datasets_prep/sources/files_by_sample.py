"""Grouping the files of each sample, for datasets in which they share a name.

Millions of names are sorted in Arrow columns: dictionaries of dictionaries would take a gigabyte.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datasets_prep.storage.listing import FileListing

_CHUNK = 65_536
_SEPARATOR = "\0"
"""Between scope and name in a key: no path contains it, and it sorts before all that paths contain."""


class FilesBySample:
    """(scope, name) → role → path, in the order of scope and name.

    `paths` are those of all files, `roles` the names of the roles. For each matching file there are its
    scope and name (`keys`, sorted) and its indices into `roles` (`codes`) and `paths` (`positions`).
    """

    def __init__(
        self,
        paths: pa.ChunkedArray,
        roles: list[str],
        keys: pa.ChunkedArray,
        codes: NDArray[np.uint8],
        positions: NDArray[np.int64],
    ) -> None:
        self._paths, self._roles = paths, roles
        self._keys, self._codes, self._positions = keys, codes, positions

    def items(self) -> Iterator[tuple[tuple[str, str], dict[str, str]]]:
        """Each sample's scope and name, with its files by role."""
        for key, rows in itertools.groupby(self._rows(), key=itemgetter(0)):
            scope, _, name = key.partition(_SEPARATOR)
            yield (scope, name), {role: path for _, role, path in rows}

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for start in range(0, len(self._keys), _CHUNK):
            part = slice(start, start + _CHUNK)
            keys = self._keys.slice(start, _CHUNK).to_pylist()
            paths = self._paths.take(pa.array(self._positions[part])).to_pylist()
            for key, code, path in zip(keys, self._codes[part].tolist(), paths, strict=True):
                yield key, self._roles[code], path


def collect_files(
    files: FileListing, pattern: re.Pattern[str], scope: Sequence[str], digits: int = 0
) -> tuple[FilesBySample, list[tuple[str, str]]]:
    """Match the paths of `files` against `pattern` and group them; `scope`, `digits` as in `PairedSource`.

    Returns the files of each sample, and each second copy of a file with the first one.
    """
    roles = list(pattern.groupindex)
    keys, codes, positions = _match(files, pattern, scope, digits)
    order = pc.sort_indices(keys).to_numpy()  # stable: files of one key stay in the order of the paths
    keys, codes, positions = keys.take(pa.array(order)), codes[order], positions[order]
    del order
    first = _first_of_role(keys, codes)
    repeated = np.flatnonzero(first != np.arange(len(first)))
    paths = files.table.column("path")
    pairs = sorted((int(positions[copy]), int(positions[first[copy]])) for copy in repeated)
    copies = [(paths[copy].as_py(), paths[original].as_py()) for copy, original in pairs]
    if len(repeated):
        kept = np.flatnonzero(first == np.arange(len(first)))
        keys, codes, positions = keys.take(pa.array(kept)), codes[kept], positions[kept]
    return FilesBySample(paths, roles, keys, codes, positions), copies


def _match(
    files: FileListing, pattern: re.Pattern[str], scope: Sequence[str], digits: int
) -> tuple[pa.ChunkedArray, NDArray[np.uint8], NDArray[np.int64]]:
    """Key, role and position of every path that matches."""
    code_of = {role: code for code, role in enumerate(pattern.groupindex)}
    chunks: list[pa.Array] = []
    codes, positions = bytearray(), []
    keys: list[str] = []
    found: list[NDArray[np.int64]] = []
    for position, path in enumerate(files):
        if match := pattern.fullmatch(path):
            role = str(match.lastgroup)
            within = "/".join([match[group] for group in scope])
            # One name can be written in two ways: macOS decomposes an é, Linux and Windows don't.
            key = f"{within}{_SEPARATOR}{match[role].zfill(digits)}"
            keys.append(key if key.isascii() else unicodedata.normalize("NFC", key))
            codes.append(code_of[role])
            positions.append(position)
            if len(keys) == _CHUNK:
                chunks.append(pa.array(keys, pa.string()))
                found.append(np.array(positions, np.int64))
                keys, positions = [], []
    chunks.append(pa.array(keys, pa.string()))
    found.append(np.array(positions, np.int64))
    return pa.chunked_array(chunks), np.frombuffer(bytes(codes), np.uint8), np.concatenate(found)


def _first_of_role(keys: pa.ChunkedArray, codes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """For each file the index of the first one of the same sample and role; keys are sorted.

    Sample number and role make one integer: keys a a b with roles 0 0 1 give 256, 256 and 513, whose first
    occurrences are 0, 0 and 2, so file 1 is a second copy of file 0. (There are fewer than 256 roles.)
    """
    if len(keys) == 0:
        return np.zeros(0, np.intp)
    starts = np.ones(len(keys), bool)
    starts[1:] = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy()
    sample_and_role = np.cumsum(starts) * 256 + codes
    _, firsts, inverse = np.unique(sample_and_role, return_index=True, return_inverse=True)
    result: NDArray[np.intp] = firsts[inverse]
    return result
