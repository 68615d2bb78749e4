"""The whole fuzz suite: so many hostile files a format, a table of what became of them.

    python -m tests.fuzz.campaign --mutations 2000 [--format EXR] --own 10000

Seeded: a case is named by its format and number, and is the same in every run. Files that a reader failed on
are kept in a temporary folder, which is printed.
"""

import argparse
import os
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from tests.fuzz import hostile
from tests.fuzz.damage import damage, damage_matlab, damage_png, damage_shard, damage_text
from tests.fuzz.file_format import is_text
from tests.fuzz.hostile_maps import CANARY_VARIABLE
from tests.fuzz.own_campaign import run_campaign
from tests.fuzz.subjects import Subject, damaged_copy, find_subjects
from tests.fuzz.watched_worker import Outcome, WatchedWorker

_INSIDE = {"PNG": damage_png, "Parquet": damage_shard, "MAT": damage_matlab}
"""Formats with checksums or compression around what is to be damaged too."""

_ANY_SIZE = {"video"}  # Formats whose files are that large, and not read whole.

GROWN = 3 * 2**30  # Size of a file of holes: more than a reader may take.


@dataclass(frozen=True)
class Case:
    """One hostile file in the place of a good one."""

    subject: Subject
    name: str  # how it was made
    content: bytes
    size: int | None = None  # to which holes make it grow


@dataclass
class Report:
    """What became of a format's cases."""

    format: str
    verdicts: Counter[str] = field(default_factory=Counter)
    worst_seconds: float = 0.0
    peak_bytes: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, case: Case, number: int, outcome: Outcome) -> None:
        """Count one case; keep it if the reader failed."""
        self.verdicts[outcome.verdict] += 1
        self.worst_seconds = max(self.worst_seconds, outcome.cpu_seconds)
        self.peak_bytes = max(self.peak_bytes, outcome.peak_bytes)
        if outcome.verdict == "failed":
            where = f"{case.subject.root.name}/{case.subject.path}"
            self.findings.append(f"{self.format} {number} ({case.name}), {where}: {outcome.reason}")

    def line(self) -> str:
        """A line of the table."""
        counts = [self.verdicts[verdict] for verdict in ("read", "refused", "failed")]
        peak = f"{self.peak_bytes / 2**20:.0f}"
        return _line(self.format, sum(counts), *counts, f"{self.worst_seconds:.1f}", peak)


def hostile_cases(subjects: Sequence[Subject], heavy: bool) -> Iterator[Case]:
    """Every file of the subjects' format that was made to hurt, each in the place of one of them in turn."""
    name = subjects[0].format
    variants = {**hostile.light(name), **(hostile.heavy(name) if heavy else {})}
    for number, (variant, build) in enumerate(variants.items()):
        subject = subjects[number % len(subjects)]
        yield Case(subject, variant, build(subject.content))
    if heavy and name not in _ANY_SIZE:
        for subject in subjects:
            yield Case(subject, f"grown to {GROWN} bytes", subject.content, size=GROWN)


def random_cases(
    subjects: Sequence[Subject], donors: Sequence[bytes], count: int, seed: int
) -> Iterator[Case]:
    """Random damage to the subjects in turn; a third of it to hostile files."""
    name = subjects[0].format
    variants = list(hostile.light(name).values())
    for number in range(count):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
        subject = subjects[number % len(subjects)]
        content = subject.content
        if variants and rng.random() < 0.3:
            content = variants[int(rng.integers(len(variants)))](content)
        yield Case(subject, "random", _damaged(name, content, donors, rng))


def _damaged(name: str, content: bytes, donors: Sequence[bytes], rng: np.random.Generator) -> bytes:
    if is_text(name):
        return damage_text(content, donors, rng)
    kind = name.split()[0]
    return (_INSIDE[kind] if kind in _INSIDE and rng.random() < 0.6 else damage)(content, donors, rng)


def try_cases(
    name: str, cases: Iterable[Case], worker: WatchedWorker, scratch: Path, findings: Path | None = None
) -> Report:
    """Have every case read; failures go to `findings`."""
    report = Report(name)
    for number, case in enumerate(cases):
        outcome = _try(case, worker, scratch)
        report.add(case, number, outcome)
        if outcome.verdict == "failed" and findings is not None:
            file = f"{name.replace(' ', '_').replace('.', '')}-{number:05d}.bin"
            (findings / file).write_bytes(case.content)
    return report


def _try(case: Case, worker: WatchedWorker, scratch: Path) -> Outcome:
    subject = case.subject
    with damaged_copy(subject, case.content, case.size, scratch) as (root, outside):
        outcome = worker.call(subject.reader, str(root), str(outside), *subject.arguments)
    canary = Path(os.environ[CANARY_VARIABLE])
    if canary.exists():
        canary.unlink()
        return Outcome("failed", "executed what the file says")
    return outcome


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for the cases, in which the canary would appear."""
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ[CANARY_VARIABLE] = str(scratch / "canary")
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def main() -> int:
    """Run the campaign, format by format; returns 1 if a reader failed."""
    parser = argparse.ArgumentParser(description="Hostile files, and what becomes of them.")
    parser.add_argument("--mutations", type=int, default=2000, help="random damages a format")
    parser.add_argument("--format", action="append", help="only this one; may be repeated")
    parser.add_argument("--own", type=int, default=10_000, help="damages to the files that we write; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    findings = Path(tempfile.mkdtemp(prefix="fuzz-findings-"))
    failed = 0
    print(_line("format", "files", "read", "refused", "failed", "worst s", "peak MiB"))
    with workplace() as scratch:
        subjects = find_subjects(scratch / "good")
        donors = [subject.content for subject in subjects]
        for name in arguments.format or sorted({subject.format for subject in subjects}):
            of_format = [subject for subject in subjects if subject.format == name]
            damaged = random_cases(of_format, donors, arguments.mutations, arguments.seed)
            with WatchedWorker() as worker:
                cases = chain(hostile_cases(of_format, heavy=True), damaged)
                report = try_cases(name, cases, worker, scratch, findings)
            print(report.line(), *report.findings[:10], sep="\n  ", flush=True)
            failed += report.verdicts["failed"]
        if arguments.own:
            table = run_campaign(scratch / "own", range(arguments.own), arguments.seed)
            print(*table.lines(), *table.findings[:100], sep="\n", flush=True)
            failed += len(table.findings)
    if not any(findings.iterdir()):
        findings.rmdir()
    print(f"{failed} failures" + (f", files in {findings}" if findings.exists() else ""))
    return 1 if failed else 0


def _line(*cells: object) -> str:
    return f"{cells[0]:<14}" + "".join(f"{cell:>9}" for cell in cells[1:])


if __name__ == "__main__":
    sys.exit(main())
