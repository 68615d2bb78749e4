"""The tables are the paper's: settings that exist, figures as printed, slips that are known."""

import pytest
import torch

import dpt
from pipelines.config import TrainConfig
from pipelines.config_files import load_section
from tune.ablations import DATASETS, PAPER, Row
from tune.records import LATENCY, MEAN, PARAMETERS, TABLES

ROWS = [
    pytest.param(table, row, id=f"{table.name}-{row.title}") for table in PAPER.values() for row in table.rows
]
COMPARED = [PAPER[name] for name in ("skip", "readout", "backbone")]


def config_of(row: Row) -> TrainConfig:
    return load_section("train", TrainConfig, None, [f"{key}={value}" for key, value in row.changes.items()])


def test_all_tables_are_there_in_order():
    assert tuple(PAPER) == TABLES
    assert [len(table.rows) for table in PAPER.values()] == [5, 3, 7, 7, 4]


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_is_a_model_that_can_be_built(table, row):
    section = config_of(row).model
    with torch.device("meta"):
        model = dpt.create_model(section.name, **section.overrides)
    for key, value in section.overrides.items():
        found = getattr(model.config, key)
        assert (list(found) if key == "taps" else found) == value


@pytest.mark.parametrize("table", COMPARED, ids=lambda table: table.name)
def test_titles_are_unique_and_every_dataset_has_a_figure(table):
    assert len({row.title for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert set(row.paper) == {*DATASETS, MEAN}


@pytest.mark.parametrize("table", COMPARED, ids=lambda table: table.name)
def test_what_is_bold_is_the_best_as_printed(table):
    for column in (*DATASETS, MEAN):
        (bold,) = (row for row in table.rows if column in row.bold)
        assert bold.paper[column] == min(row.paper[column] for row in table.rows)


def test_one_printed_mean_is_not_that_of_its_row():
    means = {row.title: (row.paper[MEAN], row.recomputed_mean()) for table in COMPARED for row in table.rows}
    wrong = {title: pair for title, pair in means.items() if pair[0] != pair[1]}
    assert wrong == {"Hybrid {R0, R1, 9, 12}": (0.0733, 0.0783)}
    assert "0.0733" in PAPER["skip"].notes[0]


def test_rows_that_two_tables_share_have_the_same_figures():
    skip, readout, backbone = ({row.title: row for row in table.rows} for table in COMPARED)
    assert skip["Base {3, 6, 9, 12}"].paper == readout["Ignore"].paper
    assert readout["Project"].paper == backbone["ViT-Base"].paper
    assert skip["Hybrid {R0, R1, 9, 12}"].paper != backbone["ViT-Hybrid"].paper


@pytest.mark.heavy
def test_the_models_of_table_9_have_about_its_parameters():
    for row in PAPER["speed"].rows:
        with torch.device("meta"):
            model = dpt.create_model(row.changes["model.name"])
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert millions == pytest.approx(row.paper[PARAMETERS], rel=0.025)
        assert row.paper[LATENCY] > 0
