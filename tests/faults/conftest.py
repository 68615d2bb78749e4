"""The training runs that disturbed ones are compared with; each is made once."""

from pathlib import Path

import pytest

from tests.support.faulty_training import EXACTLY, STEPS, Curve, Place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, shards_folder: Path, mlflow_template: Path) -> Place:
    return Place.new(tmp_path_factory.mktemp("disturbed"), shards_folder, mlflow_template)


@pytest.fixture(scope="session")
def undisturbed(place: Place) -> Curve:
    """The curve of one rank that nothing happens to."""
    return whole_curve(place, "undisturbed")


@pytest.fixture(scope="session")
def undisturbed_by_two(place: Place) -> Curve:
    """The same with two ranks."""
    return whole_curve(place, "undisturbed_by_two", "workers=2")


@pytest.fixture(scope="session")
def undisturbed_exactly(place: Place) -> Curve:
    """That of one rank, to compare with other numbers of ranks."""
    return whole_curve(place, "undisturbed_exactly", EXACTLY)


def whole_curve(place: Place, name: str, *more: str) -> Curve:
    """The curve of a run, which has every step once, and not one loss all the way."""
    place.train_to_the_end(name, *more)
    curve = place.curve(name)
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    assert len({loss for _, loss in curve}) > STEPS // 2
    return curve
