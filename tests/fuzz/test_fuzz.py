"""Hostile files, a few of each kind: `make fuzz` has thousands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets_prep.sources import SOURCES
from tests.fuzz import hostile
from tests.fuzz.campaign import Case, hostile_cases, random_cases, try_cases, workplace
from tests.fuzz.file_format import is_text
from tests.fuzz.reading import read_list, read_sample
from tests.fuzz.subjects import Subject, find_subjects
from tests.fuzz.watched_worker import WatchedWorker

pytestmark = pytest.mark.heavy

RANDOM_DAMAGES = 20
FORMATS = (
    *("JPEG", "PNG 8-bit", "PNG 16-bit", "NPY", "PFM", "Sintel .dpt", "EXR", "HDF5", "MAT 5"),
    *("TIFF", "raw float32", "Parquet", "pickle", "video"),
    *("list .txt", "list .list", "list .csv", "list .yaml"),
)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with workplace() as folder:
        yield folder


@pytest.fixture(scope="module")
def subjects(scratch: Path) -> list[Subject]:
    return find_subjects(scratch / "good")


@pytest.fixture(scope="module")
def worker(scratch: Path) -> Iterator[WatchedWorker]:
    with WatchedWorker() as worker:
        yield worker


def test_every_dataset_and_every_format_is_there(subjects):
    assert {subject.arguments[0] for subject in subjects if subject.reader is read_sample} == set(SOURCES)
    assert {subject.format for subject in subjects} == set(FORMATS)


def test_undamaged_files_are_read(subjects, worker, scratch):
    # Some texts of a dataset are no lists of samples, and refused when given as one.
    good = [subject for subject in subjects if subject.reader is not read_list]
    cases = [Case(subject, "undamaged", subject.content) for subject in good]
    report = try_cases("undamaged", cases, worker, scratch)
    assert (report.findings, report.verdicts) == ([], {"read": len(cases)})


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_files_are_read_or_refused(name, subjects, worker, scratch):
    of_format = [subject for subject in subjects if subject.format == name]
    made, donors = list(hostile_cases(of_format, heavy=False)), [subject.content for subject in subjects]
    assert len(made) == len(hostile.light(name))
    cases = [*made, *random_cases(of_format, donors, RANDOM_DAMAGES, seed=0)]
    report = try_cases(name, cases, worker, scratch)
    assert report.findings == []
    # The damage was damage; but of a damaged list, what can be understood is read.
    assert report.verdicts["refused"] >= (0 if is_text(name) else RANDOM_DAMAGES // 3)
