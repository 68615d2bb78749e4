"""The paper's figures: whole, and consistent with what the paper says of them."""

import pytest

from pipelines.evaluation.paper_tables import TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"table {table.number}")
def test_every_row_has_a_value_for_every_column(table):
    for row in table.rows:
        assert len(row.values) == len(table.columns)
        assert len(row.changes) in (0, len(table.columns))
    assert len({row.name for row in table.rows}) == len(table.rows)


def test_printed_changes_are_those_of_the_printed_values_but_for_rounding():
    reference = TABLE_1.reference_row
    changed = [row for row in TABLE_1.rows if row.changes]
    assert [row.name for row in changed] == ["DPT-Large, MIX 6", "DPT-Hybrid, MIX 6", "MiDaS, MIX 6"]
    for row in changed:
        for value, base, change in zip(row.values, reference.values, row.changes, strict=True):
            assert 100 * (value / base - 1) == pytest.approx(change, abs=0.6)


@pytest.mark.parametrize(("method", "mean"), [("DPT-Large", 28), ("DPT-Hybrid", 23)])
def test_mean_changes_are_those_of_section_4_1(method, mean):
    [row] = [row for row in TABLE_1.rows if row.method == method]
    assert mean < -sum(row.changes) / len(row.changes) < mean + 1


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"table {table.number}")
def test_dpt_is_best_in_most_columns(table):
    wins = 0
    for index, column in enumerate(table.columns):
        values = {row.method: row.values[index] for row in table.rows if row.values[index] is not None}
        best = (min if column.lower_is_better else max)(values.values())
        wins += best in {value for method, value in values.items() if method.startswith("DPT")}
    assert wins >= len(table.columns) - 1


def test_a_table_of_some_datasets_keeps_the_papers_order():
    part = TABLE_1.of("nyu", "diw")
    assert [column.dataset for column in part.columns] == ["diw", "nyu"]
    assert (part.rows[0].values, part.rows[0].changes) == ((10.82, 8.32), (-13.2, -12.9))
    assert (part.reference_row.values, part.columns[0].text(12.456)) == ((12.46, 9.55), "12.46")
    assert part.columns[0].text(None) == "-"
