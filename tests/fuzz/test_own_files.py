"""A few of each kind of damage to our own files: `make fuzz` has ten thousand."""

import pytest

from tests.fuzz.own_campaign import run_campaign

CASES = 300


@pytest.mark.heavy
def test_damage_to_our_own_files_is_refused_in_a_line_or_made_again_with_a_word(tmp_path):
    table = run_campaign(tmp_path, range(CASES))
    assert table.findings == []
    counts = table.total
    assert counts.total() == CASES
    # The damage was damage.
    assert counts["refused"] + counts["said"] > CASES // 2
