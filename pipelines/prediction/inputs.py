"""The inputs of `dpt predict`: files, folders, glob patterns, on local disks and as URIs; standard input.

Folders are searched at any depth, through links too. What is not taken is counted and named: hidden files,
files that are neither image nor video, results of earlier runs, images that no installed decoder reads.

Every input has a name, the stem of its output files: `room.jpg` → `room.npy`. Files found in a folder or by a
pattern are named by their path below it. Where two names are equal, all inputs are named by their path below
their common folder, with the suffix if only that distinguishes them: no output overwrites another.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL.Image

from datasets_prep.errors import NotFound, UserError
from pipelines.prediction.outputs import SOFTWARE
from pipelines.prediction.remote import address, is_remote, list_remote, read_remote
from pipelines.prediction.video import VIDEO_SUFFIXES, is_result

STANDARD_INPUT = "-"
_OF_PILLOW = frozenset({".avif", ".gif", ".heic", ".heif"})
"""Suffixes that are taken if Pillow can open them, which depends on how it was built and on its plug-ins."""

IMAGE_SUFFIXES = _OF_PILLOW | {
    ".bmp",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}
_SUFFIXES = sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)
_NAMED = 3


class AmbiguousOutputs(UserError):
    """Outputs that would overwrite each other, or an input."""


@dataclass(frozen=True, slots=True)
class Input:
    """An image or video at `path` (`-` is standard input); `name` is the relative stem of its outputs.

    Whether it is `remote`: then `path` is that of `pipelines.prediction.remote`.
    """

    path: Path
    name: str
    remote: bool = False

    @property
    def is_video(self) -> bool:
        """Whether it is read frame by frame."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def is_standard_input(self) -> bool:
        """Whether it is read from standard input."""
        return str(self.path) == STANDARD_INPUT

    @property
    def where(self) -> str:
        """What a message calls it."""
        if self.is_standard_input:
            return "standard input"
        return address(self.path) if self.remote else str(self.path)

    def read_bytes(self) -> bytes:
        """Its content."""
        if self.is_standard_input:
            return sys.stdin.buffer.read()
        return read_remote(self.path) if self.remote else self.path.read_bytes()


def find_inputs(
    arguments: Sequence[str],
    outputs_of: Callable[[Input], Sequence[str]],
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Input]:
    """Images and videos in the order of the arguments, those of a folder sorted by path.

    Args:
        arguments: files, folders (searched at any depth), patterns such as `photos/**/*.jpg`, or `-`. A name
            that exists is a file or folder, whatever characters of patterns it has. All may be URIs.
        outputs_of: input → relative paths of the files that will be written for it.
        out: folder of the outputs. Below a folder that is searched it is not searched, and no output
            may overwrite an input.
        say: takes a line that counts and names the files that were not taken.

    Raises:
        NotFound: if an argument matches no file.
        AmbiguousOutputs: if no naming keeps the outputs apart.
    """
    found: dict[Path, Input] = {}
    left: dict[Path, str] = {}
    for argument in arguments:
        for path, below in _search(argument, out, left):
            name = str(path.relative_to(below).with_suffix("")) if below else "stdin"
            source = Input(path, name, is_remote(argument))
            found.setdefault(Path(os.path.abspath(path)) if below else path, source)
    if left := {path: reason for path, reason in left.items() if Path(os.path.abspath(path)) not in found}:
        say(f"{'1 file was' if len(left) == 1 else f'{len(left)} files were'} not taken: {_in_words(left)}")
    inputs = _with_unique_names(found, outputs_of)
    if out is not None:
        # Also by their first names: `a.png` beside `a.jpg` may be the result of an earlier run.
        _check_inputs_stay([*found.values(), *inputs], outputs_of, out)
    return inputs


def _search(argument: str, out: Path | None, left: dict[Path, str]) -> list[tuple[Path, Path | None]]:
    """Files, each with the folder that its name is relative to; `left` gets the others, with the reason."""
    if argument == STANDARD_INPUT:
        return [(Path(STANDARD_INPUT), None)]
    path, remote = Path(argument), is_remote(argument)
    if remote:
        matches, is_file = list_remote(argument)
        if is_file:
            return [(path, path.parent)]
        what = f"at {argument} (looked for {', '.join(_SUFFIXES)})"
        is_folder = not glob.has_magic(argument)
    elif is_folder := path.is_dir():
        matches, what = list(_walk(path)), f"in folder {path} (looked for {', '.join(_SUFFIXES)})"
    elif path.exists():
        return [(path, path.parent)]
    elif not glob.has_magic(argument):
        raise NotFound(f"no such image: {path}")
    else:
        globbed = [Path(match) for match in sorted(glob.glob(_literal_where_it_exists(path), recursive=True))]
        matches, what = [file for match in globbed for file in _walk(match)], f"matches {argument}"
    if matches and not is_folder:
        path = Path(os.path.commonpath([match.parent for match in matches]))
    results = os.path.abspath(out) if out and _is_inside(out, path) else None
    reasons = {match: _why_not(match, results, remote) for match in matches}
    files = [match for match, reason in reasons.items() if reason is None]
    not_taken = {match: reason for match, reason in reasons.items() if reason is not None}
    if not files:
        more = f"; not taken: {_in_words(not_taken)}" if not_taken else ""
        raise NotFound(f"no image or video {what}{more}")
    left |= not_taken
    below = path if is_folder else Path(os.path.commonpath([file.parent for file in files]))
    return [(file, below) for file in files]


def _walk(path: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The file `path`, or all files below the folder `path`, and its hidden folders; links are followed.

    A link to one of the folders `above` is a circle, and not followed.
    """
    if not path.is_dir() or (above and path.name.startswith(".")):
        yield path
    elif (real := os.path.realpath(path)) not in above:
        for child in sorted(path.iterdir()):
            yield from _walk(child, (*above, real))


def _literal_where_it_exists(path: Path) -> str:
    """The pattern `path`, escaped in folders that exist as written: `my photos [2024]/*.png`."""
    literal, parts = Path(), []
    for part in path.parts:
        literal /= part
        parts.append(glob.escape(part) if literal.exists() else part)
    return os.path.join(*parts)


def _is_inside(path: Path, folder: Path) -> bool:
    inner, outer = (Path(os.path.abspath(one)) for one in (path, folder))
    return inner != outer and inner.is_relative_to(outer)


def _why_not(path: Path, results: str | None, remote: bool) -> str | None:
    """Why the file `path` is not taken; None if it is. `results` is a folder whose files are not.

    Of a `remote` file it is not asked whether `dpt predict` wrote it: that would read all of them.
    """
    suffix = path.suffix.lower()
    if results is not None and Path(os.path.abspath(path)).is_relative_to(results):
        return "in the folder of the results"
    if path.name.startswith("."):
        return "hidden"
    if not remote and not path.is_file():
        return "a broken link" if path.is_symlink() else "not a file"
    if suffix not in _SUFFIXES:
        return "neither image nor video"
    if suffix in _OF_PILLOW and PIL.Image.registered_extensions().get(suffix) not in PIL.Image.OPEN:
        return f"no decoder of {suffix} is installed, convert it to PNG or JPEG"
    return "written by dpt predict" if not remote and _is_result(path) else None


def _is_result(path: Path) -> bool:
    """Whether the image or video at `path` was written by `dpt predict`: it says so itself."""
    if path.suffix == ".mp4":
        return path.stem.endswith("_colour") and is_result(path)
    if path.suffix != ".png":
        return False
    try:
        with PIL.Image.open(path) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return False  # whoever reads it says why not


def _in_words(left: Mapping[Path, str]) -> str:
    """`2 hidden (.a.png, .b.png), 1 neither image nor video (notes.txt)`."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in left.items():
        by_reason.setdefault(reason, []).append(path.name)
    words = []
    for reason, names in by_reason.items():
        shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        words.append(f"{len(names)} {reason} ({shown})")
    return ", ".join(words)


def _with_unique_names(found: dict[Path, Input], outputs_of: Callable[[Input], Sequence[str]]) -> list[Input]:
    files = [path for path, source in found.items() if not source.is_standard_input]
    top = os.path.commonpath([path.parent for path in files]) if files else ""

    def renamed(path: Path, source: Input) -> Input:
        return source if source.is_standard_input else replace(source, name=os.path.relpath(path, top))

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
