"""The inputs of `dpt predict`: files, folders, glob patterns, standard input.

Every input has a name, the stem of its output files: `room.jpg` → `room.npy`. Files found in a folder or by a
pattern are named by their path below it. Where two names are equal, all inputs are named by their path below
their common folder, with the suffix if only that distinguishes them: no output overwrites another.
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


class AmbiguousOutputs(UserError):
    """Outputs that would overwrite each other, or an input."""


@dataclass(frozen=True, slots=True)
class Input:
    """An image or video at `path` (`-` is standard input); `name` is the relative stem of its outputs."""

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
    arguments: Sequence[str], outputs_of: Callable[[Input], Sequence[str]], out: Path | None = None
) -> list[Input]:
    """Images and videos in the order of the arguments, those of a folder sorted by path.

    Args:
        arguments: files, folders (searched at any depth), patterns such as `photos/**/*.jpg`, or `-`.
        outputs_of: input → relative paths of the files that will be written for it.
        out: local folder of the outputs; it is not searched, and no output may overwrite an input.

    Raises:
        NotFound: if an argument matches no file.
        AmbiguousOutputs: if no naming keeps the outputs apart.
    """
    found: dict[Path, Input] = {}
    for argument in arguments:
        for path, below in _search(argument, out):
            name = str(path.relative_to(below).with_suffix("")) if below else "stdin"
            found.setdefault(Path(os.path.abspath(path)) if below else path, Input(path, name))
    inputs = _with_unique_names(found, outputs_of)
    if out is not None:
        _check_inputs_stay(inputs, outputs_of, out)
    return inputs


def _search(argument: str, out: Path | None) -> list[tuple[Path, Path | None]]:
    """Files, each with the folder that its name is relative to."""
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


def _with_unique_names(found: dict[Path, Input], outputs_of: Callable[[Input], Sequence[str]]) -> list[Input]:
    files = [path for path, source in found.items() if not source.is_standard_input]
    top = os.path.commonpath([path.parent for path in files]) if files else ""

    def renamed(path: Path, source: Input) -> Input:
        return source if source.is_standard_input else Input(source.path, os.path.relpath(path, top))

    for inputs in (
        list(found.values()),
        [renamed(path.with_suffix(""), source) for path, source in found.items()],
        [renamed(path, source) for path, source in found.items()],
    ):
        owners: dict[str, Input] = {}
        conflicts = [
            (owners[output], source)
            for source in inputs
            for output in outputs_of(source)
            if owners.setdefault(output, source) != source
        ]
        if not conflicts:
            return inputs
    one, other = conflicts[0]
    raise AmbiguousOutputs(f"outputs of {one.path} and {other.path} would overwrite each other; rename one")


def _check_inputs_stay(
    inputs: Sequence[Input], outputs_of: Callable[[Input], Sequence[str]], out: Path
) -> None:
    originals = {os.path.abspath(source.path) for source in inputs}
    for source in inputs:
        for output in outputs_of(source):
            if os.path.abspath(out / output) in originals:
                raise AmbiguousOutputs(
                    f"{out / output} is an input and would be overwritten; choose another --out"
                )
