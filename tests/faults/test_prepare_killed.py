"""`dpt prepare`, killed with all its Ray processes and run again, must end with the bytes of one clean run.

Nothing is simulated: the command runs as a user runs it, and SIGKILL hits its driver, the raylet and every
worker. The moments are seeded, but land where the machine's speed puts them.
"""

import sys
from pathlib import Path

import pytest

from datasets_prep.manifest import LATEST_NAME
from datasets_prep.storage.folder import PARTIAL_MARK
from datasets_prep.synthetic import write_dataset
from tests.support.files import check_only_whole_files, contents, differing
from tests.support.killing import moments, plant_half_written_files, run_to_the_end, run_until_killed

pytestmark = [pytest.mark.fault, pytest.mark.ray]

SETTINGS = ("side=64", "samples_per_shard=2")
ROUNDS = 10  # Each round kills twice; the first one runs in the quick suite, all of them are twenty kills.


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    # With the defects of the real set, so that the quarantine table has something to say.
    write_dataset("redweb", root, scenes=24, height=96, width=128, traps=True)
    return root


@pytest.fixture(scope="module")
def clean(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one undisturbed run writes."""
    out = tmp_path_factory.mktemp("clean")
    run_to_the_end(command(raw, out))
    return out


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=pytest.mark.slow if n else ()) for n in range(ROUNDS)]
)
def test_a_killed_run_ends_as_a_clean_one(number, raw, clean, tmp_path):
    expected = contents(clean)
    for moment in moments(number):
        run_until_killed(command(raw, tmp_path), tmp_path / "redweb", moment)
        left = contents(tmp_path)
        half = [name for name in left if PARTIAL_MARK in name]
        print(f"{moment}: {len(left)} of {len(expected)} files, {len(half)} half-written")
        check_only_whole_files(left, expected)
        if number == 0:
            assert not any(name.endswith(LATEST_NAME) for name in left), "killed too late to disturb anything"
    plant_half_written_files(tmp_path / "redweb")
    run_to_the_end(command(raw, tmp_path))
    after = contents(tmp_path)
    assert sorted(after) == sorted(expected)
    assert differing(after, expected) == []


def test_a_finished_dataset_is_left_untouched(raw, clean):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in clean.rglob("*")}
    run_to_the_end(command(raw, clean))
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in clean.rglob("*")}
    assert after == before


# ---- the command
def command(raw: Path, out: Path) -> list[str]:
    arguments = ("prepare", "redweb", *SETTINGS, "--raw", str(raw), "--out", str(out))
    return [sys.executable, "-m", "tune.cli", *arguments]
