"""What `dpt predict` is asked to predict: files, folders, glob patterns, standard input.

Every input has a name, and its results are called after it: `room.jpg` → `room.npy`. Files that were found in
a folder or by a pattern are named by their path below it. Where two names are the same, all are named by
their path below the folder that holds all inputs, with the suffix if that is what tells them apart: no result
overwrites another's.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets_prep.errors import NotFound, UserError
from pipelines.prediction.video import VIDEO_SUFFIXES

STANDARD_INPUT = "-"
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_SUFFIXES = sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)


class AmbiguousResults(UserError):
    """Results that would overwrite each other, or an input."""


@dataclass(frozen=True, slots=True)
class Input:
    """One image or video: where it is (`-` is standard input), and what its results are called."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is read frame by frame."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def is_standard_input(self) -> bool:
        """Whether it is read from standard input."""
        return str(self.path) == STANDARD_INPUT


def find_inputs(
    arguments: Sequence[str], results_of: Callable[[Input], Sequence[str]], out: Path | None = None
) -> list[Input]:
    """Images and videos, in the order in which they are named, those of a folder by path.

    Args:
        arguments: files, folders (searched at any depth), patterns such as `photos/**/*.jpg`, or `-`.
        results_of: relative paths of the files that will be written for an input.
        out: the local folder of the results; what lies in it is not searched, and nothing of it overwrites an
            input.

    Raises:
        NotFound: if an argument names nothing.
        AmbiguousResults: if no naming keeps the results apart.
    """
    found: dict[Path, Input] = {}
    for argument in arguments:
        for path, below in _search(argument, out):
            name = str(path.relative_to(below).with_suffix("")) if below else "stdin"
            found.setdefault(Path(os.path.abspath(path)) if below else path, Input(path, name))
    inputs = _told_apart(found, results_of)
    if out is not None:
        _check_inputs_stay(inputs, results_of, out)
    return inputs


def _search(argument: str, out: Path | None) -> list[tuple[Path, Path | None]]:
    """Files, each with the folder below which its path is its name."""
    if argument == STANDARD_INPUT:
        return [(Path(STANDARD_INPUT), None)]
    path = Path(argument)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _is_wanted(file, out)]
        if not files:
            raise NotFound(f"no image or video in folder {path} (looked for {', '.join(_SUFFIXES)})")
        return [(file, path) for file in files]
    if path.exists():
        return [(path, path.parent)]
    if not glob.has_magic(argument):
        raise NotFound(f"no such image: {path}")
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
    files = [match for match in matches if _is_wanted(match, out)]
    if not files:
        raise NotFound(f"no image or video matches {argument}")
    below = Path(os.path.commonpath([file.parent for file in files]))
    return [(file, below) for file in files]


def _is_wanted(path: Path, out: Path | None) -> bool:
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        return False
    return out is None or not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(out))


def _told_apart(found: dict[Path, Input], results_of: Callable[[Input], Sequence[str]]) -> list[Input]:
    files = [path for path, source in found.items() if not source.is_standard_input]
    top = os.path.commonpath([path.parent for path in files]) if files else ""

    def renamed(keep_suffix: bool) -> list[Input]:
        return [
            source
            if source.is_standard_input
            else Input(source.path, os.path.relpath(path if keep_suffix else path.with_suffix(""), top))
            for path, source in found.items()
        ]

    inputs = list(found.values())
    for inputs in (inputs, renamed(keep_suffix=False), renamed(keep_suffix=True)):  # noqa: B020
        owners: dict[str, Input] = {}
        doubled = [
            (owners[result], source)
            for source in inputs
            for result in results_of(source)
            if owners.setdefault(result, source) != source
        ]
        if not doubled:
            return inputs
    one, other = doubled[0]
    raise AmbiguousResults(f"results of {one.path} and {other.path} would overwrite each other; rename one")


def _check_inputs_stay(
    inputs: Sequence[Input], results_of: Callable[[Input], Sequence[str]], out: Path
) -> None:
    originals = {os.path.abspath(source.path) for source in inputs}
    for source in inputs:
        for result in results_of(source):
            if os.path.abspath(out / result) in originals:
                raise AmbiguousResults(
                    f"{out / result} is an input and would be overwritten; choose another --out"
                )
