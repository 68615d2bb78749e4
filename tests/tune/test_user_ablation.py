"""A user's own ablation is one small YAML, and a mistake in it one clear line."""

from pathlib import Path

import pytest

from pipelines.config import ConfigError
from tune.user_ablation import read_ablation


def read(folder: Path, text: str) -> object:
    path = folder / "mine.yaml"
    path.write_text(text)
    return read_ablation(path)


def test_a_grid_is_every_combination(tmp_path):
    vary = "vary:\n  model.overrides.features: [64, 128]\n  seed: [1, 2, 3]\n"
    table = read(tmp_path, f"name: decoder\ncaption: Width\n{vary}")
    assert (table.name, table.caption, table.number, table.trained) == ("decoder", "Width", "", True)
    assert [row.title for row in table.rows][:2] == ["features=64, seed=1", "features=64, seed=2"]
    assert (len(table.rows), table.rows[-1].changes) == (6, {"model.overrides.features": 128, "seed": 3})
    assert table.rows[0].paper == {}


def test_a_list_has_titles_of_its_own(tmp_path):
    table = read(tmp_path, "variants:\n  without: {loss.gradient_weight: 0}\n  paper: {}\n")
    assert table.name == "mine"
    changes = {row.title: dict(row.changes) for row in table.rows}
    assert changes == {"without": {"loss.gradient_weight": 0}, "paper": {}}


@pytest.mark.parametrize(("text", "message"), [
    ("- a", "expected the keys name and vary or variants"),
    ("name: [", "not valid YAML: line 1: "),
    ("name: x", "expected either vary or variants"),
    ("vary: {a: [1]}\nvariants: {b: {}}", "expected either vary or variants"),
    ("vary: {}", "vary: expected key: "),
    ("vary: {seed: 1}", "vary.seed: expected a list of values, got 1"),
    ("vary: {seed: []}", "vary.seed: expected a list"),
    ("variants: {a: 3}", "variants.a: expected key: value"),
    ("name: skip\nvary: {seed: [1]}", "skip is a table of the paper"),
    ("name: a/b\nvary: {seed: [1]}", "name: expected letters"),
    ("varry: {seed: [1]}", "varry: unknown key; there are: caption, name, variants, vary"),
])  # fmt: skip
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no ablation at .*nowhere\.yaml"):
        read_ablation(tmp_path / "nowhere.yaml")
