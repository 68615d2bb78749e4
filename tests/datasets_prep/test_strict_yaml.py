"""YAML: what is read, what is refused by key, and what is written so that it is read again."""

import math

import pytest

from datasets_prep.sources.folder import read_description
from datasets_prep.strict_yaml import InvalidYaml, dump_yaml, load_yaml
from pipelines.config import ConfigError
from pipelines.config_files import load_experiment
from tests.support.raw_files import put
from tune.user_ablation import read_ablation


@pytest.mark.parametrize(("text", "value"), [
    ("1e5", 100000.0),
    ("-2.5E3", -2500.0),
    ("1e-4", 0.0001),
    (".5e2", 50.0),
    ("'1e5'", "1e5"),
    ("1e", "1e"),
    ("0", 0),
    ("0.10", 0.1),
    ("0x1F", 31),
    ("1_000", 1000),
    ("'010'", "010"),
    ('"1:30"', "1:30"),
    ("'2012-01-01 1:30'", "2012-01-01 1:30"),
    ("", None),
    ("{a: &x {k: 1}, b: {<<: *x, k: 2}}", {"a": {"k": 1}, "b": {"k": 2}}),
    ("[&x [1], *x]", [[1], [1]]),
])  # fmt: skip
def test_values(text, value):
    found = load_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("text", "message"), [
    ("train: {steps: 1}\neval: 2\ntrain: {steps: 2}", r"^train: key given twice, in lines 1 and 3$"),
    ("a: {b: [{c: 1, c: 2}]}", r"^a\.b\.0\.c: key given twice"),
    ("a: 1\n'a': 2", r"^a: key given twice"),
    ("seed: 010", r"^seed: 010 is octal in YAML; write 10, or '010' for text"),
    ("seed: -08", r"^seed: -08 is octal .*write -8,"),
    ("a: [1, {b: 00}]", r"^a\.1\.b: 00 is octal in YAML; write 0,"),
    ("time: 1:30", r"^time: 1:30 counts in sixties"),
    ("time: 190:20:30.15", r"^time: 190:20:30.15 counts in sixties"),
    ("010: x", r"^010 is octal"),
    ("010", r"^010 is octal"),
    ("a: [", r"^not valid YAML: line 1: "),
    ("a: 1\n b: 2", r"^not valid YAML: line 2: "),
    ("a: !!int ''", "^not valid YAML"),
    ("a: !!timestamp x", "^not valid YAML"),
    ("a: !!python/object/apply:os.system [id]", "^not valid YAML: line 1: could not determine a constructor"),
    ("a: " + "9" * 5000, "^not valid YAML"),
    ("[" * 5000, "^not valid YAML"),
    ("a: 1\n---\na: 2", "^not valid YAML: line 2"),
    (b"name: caf\xe9", "^not valid YAML"),
])  # fmt: skip
def test_what_has_two_readings_is_refused_by_key(text, message):
    with pytest.raises(InvalidYaml, match=message) as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_every_editor_are_read(encoding):
    assert load_yaml("name: Küche\r\nsteps: 3\r\n".encode(encoding)) == {"name": "Küche", "steps": 3}


@pytest.mark.parametrize("value", ["1e5", "010", "08", "1:30", "yes", "Küche", 1e5, 1e-5, math.inf, 12])
def test_what_is_written_is_read_again(value):
    assert load_yaml(dump_yaml({"key": [value]})) == {"key": [value]}


def test_every_kind_of_file_is_read_by_these_rules(tmp_path):
    twice = tmp_path / "twice.yaml"
    twice.write_text("train: {steps: 10}\ntrain: {steps: 20}\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml: train: key given twice"):
        load_experiment(str(twice))
    twice.write_text("name: a\nvary: {steps: [010]}\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml: vary\.steps\.0: 010 is octal"):
        read_ablation(twice)
    description = b"name: a\nquantity: depth\nmetric: true\nscale: 1\nscale: 0.001\n"
    with pytest.raises(ValueError, match=r"dataset\.yaml: scale: key given twice, in lines 4 and 5"):
        read_description(put(tmp_path, {"dataset.yaml": description}))


def test_text_in_another_encoding_is_told_to_be_saved_in_utf_8():
    with pytest.raises(InvalidYaml, match=r"not valid YAML: .*; save it in UTF-8$"):
        load_yaml("# für\na: 1".encode("latin-1"))
