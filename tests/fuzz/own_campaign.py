"""Damage to the files that this project writes, and what the jobs that read them make of it.

    python -m tests.fuzz.own_campaign --cases 10000

Seeded, in one process: case number n of a kind of file is the same in every run. A damaged file must be
refused in one line, or made again or passed over with a word about it, or read as it was.
"""

import argparse
import json
import logging
import re
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets_prep.errors import UserError, printable
from datasets_prep.storage.sealed import SEAL, sealed
from tests.fuzz.damage import damage, damage_text
from tests.fuzz.own_files import OwnFile, write_own_files

Rng = np.random.Generator

_SECONDS = 10.0
"""Of processor time, after which a case hangs."""

_LONGEST = 1000
_VALUES = (
    *(
        "0",
        "-1",
        "1e999",
        "NaN",
        "-Infinity",
        "null",
        "true",
        "1.5",
        "9" * 400,
        "9" * 5000,
        "2147483648",
        "100000",
        "3000",
        "{}",
        "[]",
    ),
    *(
        '""',
        '"x"',
        '"../.."',
        '"/etc/passwd"',
        '"..\\\\.."',
        '"\\u0000"',
        '"\\u001b[31m"',
        '"\\ud800"',
        '"a\\nb"',
    ),
    *(
        '["x"]',
        '{"a": 1}',
        '"1"',
        "[" * 2000 + "]" * 2000,
        "{" * 20,
        "2020-01-01",
        "!!python/object:os.system",
        "&a *a",
    ),
)
_VALUE = re.compile(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|\"[^\"\n]*\"|\b(?:true|false|null)\b")
_LINE = re.compile(rb"^.*:.*$", re.MULTILINE)


class _Hang(BaseException):
    """A case took more than its processor time."""


@dataclass
class Table:
    """Kind of file → what became of its cases; `findings` are those that failed, each in a line."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def add(self, file: OwnFile, name: str, verdict: str) -> None:
        """Count one case."""
        kind, _, reason = verdict.partition(": ")
        self.counts.setdefault(file.kind, Counter())[kind] += 1
        if kind in ("traceback", "silent", "hang"):
            self.findings.append(
                f"{file.kind}, {name}: {verdict}" if reason else f"{file.kind}, {name}: {kind}"
            )

    @property
    def total(self) -> Counter[str]:
        """Of all kinds."""
        return sum(self.counts.values(), Counter())

    def lines(self) -> Iterator[str]:
        """The table."""
        columns = ("as it was", "refused", "said", "accepted", "traceback", "silent", "hang")
        yield f"{'file':<33}" + "".join(f"{column:>11}" for column in columns)
        for kind, counts in {**self.counts, "all": self.total}.items():
            yield f"{kind:<33}" + "".join(f"{counts[column]:>11}" for column in columns)


def run_campaign(root: Path, cases: Iterable[int], seed: int = 0, only: str = "") -> Table:
    """Damage each kind of file in turn below the folder `root`, by the numbers `cases`; `only` some kinds."""
    files = [file for file in write_own_files(root) if only in file.kind]
    good = {file.kind: _read(file)[0] for file in files}
    donors, table = [file.content for file in files], Table()
    for number in cases:
        file = files[number % len(files)]
        rng = np.random.default_rng([seed, zlib.crc32(file.kind.encode()), number // len(files)])
        content = file.content
        name, damaged, comparable = _damaged(content, donors, rng)
        file.path.write_bytes(damaged)
        try:
            wanted = good[file.kind] if comparable and not file.written_by_user else None
            table.add(file, f"case {number // len(files)} ({name})", _verdict(file, wanted))
        finally:
            file.path.write_bytes(content)
    return table


def _verdict(file: OwnFile, wanted: str | None) -> str:
    """`as it was`, `refused`, `said`, `accepted` (not to be compared), or a failure and its reason."""
    try:
        with _limited():
            found, said = _read(file)
    except UserError as error:
        lines = str(error).split("\n") if file.written_by_user else [str(error)]  # of a config, each key
        problem = next((found for line in lines if (found := _problem_of(line))), "")
        return f"traceback: {problem}: {str(error)[:300]!r}" if problem else "refused"
    except _Hang:
        return f"hang: more than {_SECONDS:g} seconds"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback: {type(error).__name__}: {str(error)[:200]!r} at {last.filename}:{last.lineno}"
    if any(_problem_of(line) for line in said):
        return f"traceback: said {said!r}"
    if wanted is None:
        return "accepted"
    if found == wanted:
        return "as it was"
    return "said" if said else f"silent: {_difference(wanted, found)}"


def _problem_of(message: str) -> str:
    """What is wrong with a message to the user; "" if nothing is."""
    shown = printable(message)
    if not shown or "\n" in shown or len(shown) > _LONGEST:
        return "not one line"
    return "" if shown.isprintable() else "control characters"


def _read(file: OwnFile) -> tuple[str, list[str]]:
    """What the job makes of the file, as text, and what it said."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = repr(file.read(said.append))
    return found, said + [str(one.message) for one in caught]


def _difference(wanted: str, found: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), 0)
    return f"{wanted[place - 20 : place + 40]!r} → {found[place - 20 : place + 40]!r}"


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# ---- damage


def _damaged(content: bytes, donors: Sequence[bytes], rng: Rng) -> tuple[str, bytes, bool]:
    """How, the damaged content, and whether it must be read as it was or not at all.

    Where a digest fits a changed content, somebody meant it.
    """
    ways: list[tuple[str, Callable[..., bytes]]] = [
        ("flipped", _flip),
        ("cut", _cut),
        ("zeroed", _zero),
        ("wounded", damage),
    ]
    is_text = not content.startswith((b"PAR1", b"\0")) and b"\0" not in content
    if is_text:
        ways += [("text", damage_text)] + 4 * [("token", _change_token)] + [("twice", _repeat_line)]
    weights = content[8:9] == b"{"
    if weights:
        ways += 2 * [("header", _change_header)]
    if is_text and SEAL.encode() in content and rng.random() < 0.3:
        return "sealed again", _sealed_again(content, rng), False
    name, way = ways[int(rng.integers(len(ways)))]
    damaged = way(content, donors, rng)
    return name, damaged, True


def _flip(content: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(len(content), size=int(rng.choice([1, 1, 1, 2, 8]))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(content: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _zero(content: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    start, length = int(rng.integers(len(content))), int(2 ** rng.uniform(0, 13))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def _change_token(content: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        found = list(_VALUE.finditer(content))
        if found:
            match = found[int(rng.integers(len(found)))]
            value = _VALUES[int(rng.integers(len(_VALUES)))].encode()
            content = content[: match.start()] + value + content[match.end() :]
    return content


def _repeat_line(content: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    """A key given twice, with another value."""
    lines = list(_LINE.finditer(content))
    if not lines:
        return content
    line = lines[int(rng.integers(len(lines)))]
    again = _change_token(line[0], (), rng)
    return (
        content[: line.end()]
        + (b"" if line[0].endswith(b",") else b",") * (b"{" in content[:1])
        + b"\n"
        + again
        + content[line.end() :]
    )


def _change_header(content: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    """Other numbers and names in the header of a safetensors file, whose length is made good."""
    size = int.from_bytes(content[:8], "little")
    header = _change_token(content[8 : 8 + size], (), rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _sealed_again(content: bytes, rng: Rng) -> bytes:
    """Other values below a digest that fits them, as another version of the program may write them."""
    try:
        plain = json.loads(_change_token(content, (), rng))
        plain.pop(SEAL, None)
        return sealed(plain).encode()
    except (ValueError, AttributeError, RecursionError, UnicodeEncodeError):
        return content


def main() -> int:
    """Run the campaign; returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description="Damage to our own files, and what becomes of it.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of a kind of file")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    cases = range(arguments.start, arguments.start + arguments.cases)
    with tempfile.TemporaryDirectory(prefix="fuzz-own-") as root:
        table = run_campaign(Path(root), cases, arguments.seed, arguments.only)
    print(*table.lines(), *table.findings[:200], sep="\n")
    return 1 if table.findings else 0


if __name__ == "__main__":
    sys.exit(main())
