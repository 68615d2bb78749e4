"""What README and docs say, as far as it can be checked without Ray: every command line, snippet and link."""

import os
import re
import shlex
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
import yaml
from pydantic import BaseModel
from typer.core import TyperGroup

import dpt
from datasets_prep.settings import IngestSettings, StereoSettings
from datasets_prep.sources import SOURCES
from datasets_prep.sources.folder import Description
from datasets_prep.writers import WRITERS
from pipelines.config import (
    EvaluateConfig,
    Experiment,
    LabelConfig,
    PredictConfig,
    TrainConfig,
    ZeroShotConfig,
)
from pipelines.config_files import TASK_CONFIGS, load_experiment, load_section
from pipelines.convert import EXPORTERS
from pipelines.evaluation.sets import ZERO_SHOT
from pipelines.finetune import preset_of
from tests.support.commands import dpt as run_dpt
from tests.support.documents import PAGES, README, Block, blocks, commands
from tests.support.paths import REPOSITORY
from tune import cli
from tune.ablations import PAPER
from tune.user_ablation import read_ablation

MOST_README_LINES = 160
MAKE_TARGETS = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
GROUP = typer.main.get_command(cli.app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = GROUP.commands
OTHER_PROGRAMS = {".", "aws", "cd", "curl", "echo", "export", "mkdir", "mlflow", "open", "ray"}
"""What shell blocks may call besides `dpt`, `make` and the benchmarks."""


# ---- command lines
def shell_lines() -> list[Any]:
    lines = [(block, words) for block in blocks("sh") for words in commands(block.code)]
    return [pytest.param(words, id=f"{block.where} {' '.join(words)[:60]}") for block, words in lines]


@pytest.mark.parametrize("words", shell_lines())
def test_every_command_line_parses(words, tmp_path, monkeypatch):
    _write_shown_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    check_line(words)


def test_a_wrong_command_line_is_seen():
    for line in (
        *("dpt tarin --data x --name y", "dpt train --data x --nmae y", "make tset"),
        *("pip install dpt", "pip install '.[al]'"),
        *("dpt train --data x --name y stepz=3", "dpt train --data x --name y steps=many"),
        "dpt submit -- train --data s3://x --name y stepz=3",
        *("dpt prepare redwep --raw x --out y", "dpt evaluate --model x --on eth4d --raw y"),
        *("dpt tune skp --data x --name y", "dpt predict a.jpg --model m --out o --dtype float17"),
        *("python benchmarks/nothing.py", "python benchmarks/scaling.py --gpu 3"),
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011 (each has an error of its own)
            check_line(shlex.split(line))


def check_line(words: list[str]) -> None:
    """Raise an error unless a command line is one that works, as far as can be told without running it."""
    program, *arguments = words
    if program == "dpt":
        _check_dpt(arguments)
    elif program == "make":
        assert set(arguments) <= MAKE_TARGETS, f"no target of the Makefile: {arguments}"
    elif program == "pip":
        _check_pip(*arguments)
    elif program == "python":
        _check_script(*arguments)
    else:
        assert program in OTHER_PROGRAMS, f"{program} is not a program that a reader has"


def _check_pip(command: str, target: str) -> None:
    wanted = re.fullmatch(r"(\.|dpt-on-ray)(\[(.*)\])?", target)
    assert command == "install"
    assert wanted
    _, _, extras = (REPOSITORY / "pyproject.toml").read_text().partition("optional-dependencies]")
    assert {*filter(None, (wanted[3] or "").split(","))} <= set(re.findall(r"^(\w+) = \[", extras, re.M))


def _check_script(script: str, *arguments: str) -> None:
    text = (REPOSITORY / script).read_text(encoding="utf-8")
    for option in (word for word in arguments if word.startswith("--")):
        assert f'"{option}"' in text, f"{script} has no option {option}"


def _check_dpt(arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in COMMANDS, f"no command {name}"
    parameters = COMMANDS[name].make_context(name, rest).params
    _CHECKS.get(name, lambda parameters: None)(parameters)


def _check_section(job: str, section: type[BaseModel], *also: str) -> Callable[[dict[str, Any]], None]:
    def check(parameters: dict[str, Any]) -> None:
        load_section(job, section, parameters["config"], [*also, *(parameters["overrides"] or [])])

    return check


def _check_train(parameters: dict[str, Any]) -> None:
    task = parameters["task"]
    config = parameters["config"] or TASK_CONFIGS.get(task or "")
    chosen = [f"task={task}"] if task else []
    settings = load_section("train", TrainConfig, config, [*chosen, *(parameters["overrides"] or [])])
    assert settings.model.name in dpt.list_models()


def _check_finetune(parameters: dict[str, Any]) -> None:
    preset = preset_of(parameters["target"])
    load_section("train", TrainConfig, parameters["config"], parameters["overrides"] or [], preset)


def _check_evaluate(parameters: dict[str, Any]) -> None:
    assert bool(parameters["data"]) != bool(parameters["on"])
    assert set(parameters["on"] or ()) <= set(ZERO_SHOT)
    job, section = ("evaluate", EvaluateConfig) if parameters["data"] else ("zero_shot", ZeroShotConfig)
    _check_section(job, section)(parameters)


def _check_predict(parameters: dict[str, Any]) -> None:
    keys = ("side", "rule", "device", "dtype", "batch_size", "colours", "ply")
    given = [f"{key}={parameters[key]}" for key in keys if parameters[key] is not None]
    lists = [f"attention=[{parameters['attention']}]"] if parameters["attention"] else []
    references = [f"[{text}]" for text in parameters["reference"] or ()]
    lists += [f"references=[{', '.join(references)}]"] if references else []
    overrides = [*given, *lists, *(word for word in parameters["images"] if "=" in word)]
    load_section("predict", PredictConfig, parameters["config"], overrides)


def _check_label(parameters: dict[str, Any]) -> None:
    load_section("label", LabelConfig, parameters["config"], parameters["override"] or [])


def _check_distill(parameters: dict[str, Any]) -> None:
    load_experiment(parameters["config"], parameters["override"] or [])


def _check_tune(parameters: dict[str, Any]) -> None:
    words = parameters["what"] or []
    load_section("train", TrainConfig, parameters["config"], [word for word in words if "=" in word])
    for word in (word for word in words if "=" not in word):
        assert word in PAPER or read_ablation(Path(word)).rows


def _check_config(parameters: dict[str, Any]) -> None:
    section = type(getattr(Experiment(), parameters["job"]))
    _check_section(parameters["job"], section)(parameters)


def _check_prepare(parameters: dict[str, Any]) -> None:
    assert parameters["dataset"] in SOURCES
    _check_section("prepare", IngestSettings)(parameters)


def _check_known(name: str, known: Container[str]) -> Callable[[dict[str, Any]], None]:
    def check(parameters: dict[str, Any]) -> None:
        assert parameters[name] in known

    return check


_CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "generate": _check_known("dataset", WRITERS),
    "prepare": _check_prepare,
    "stereo": _check_section("stereo", StereoSettings),
    "train": _check_train,
    "finetune": _check_finetune,
    "evaluate": _check_evaluate,
    "predict": _check_predict,
    "label": _check_label,
    "distill": _check_distill,
    "convert": _check_known("to", EXPORTERS),
    "tune": _check_tune,
    "config": _check_config,
    "submit": lambda parameters: _check_dpt(parameters["command"]),
}
"""Command → what is checked of its parameters once they are parsed."""


# ---- other blocks
@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.where)
def test_every_console_example_prints_what_it_shows(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, _, expected = block.code.partition("\n")
    prompt, *words = shlex.split(first)
    assert prompt == "$"
    assert words[0] == "dpt"
    run_dpt(*words[1:])
    printed = "".join(capsys.readouterr())
    pattern = ".*".join(map(re.escape, expected.strip().split("…")))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), printed


def _write_shown_files(folder: Path) -> None:
    """The files that YAML blocks show, for the command lines that name them."""
    for block in blocks("yaml"):
        if match := re.match(r"# (\S+)\n", block.code):
            (folder / match[1]).write_text(block.code)


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.where)
def test_every_yaml_file_is_valid(block, tmp_path):
    name = block.code.partition("\n")[0].removeprefix("# ")
    path = tmp_path / name
    path.write_text(block.code)
    if name == "dataset.yaml":
        Description.model_validate(yaml.safe_load(block.code))
    elif name.endswith("_ablation.yaml"):
        assert read_ablation(path).rows
    else:
        Experiment.model_validate(yaml.safe_load(block.code))


READS_SHARDS, LOADS_REGISTERED = "train-00000.parquet", "mlflow.pyfunc"
"""Snippets with these need what Ray or MLflow makes: `tests/test_docs_on_ray.py` runs them."""


def plain_snippets() -> list[Block]:
    return [b for b in blocks("python") if READS_SHARDS not in b.code and LOADS_REGISTERED not in b.code]


@pytest.mark.parametrize("block", plain_snippets(), ids=lambda block: block.where)
def test_every_python_snippet_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.jpg", np.zeros((48, 64, 3), np.uint8))
    dpt.save_model(dpt.create_model("dpt_tiny"), "runs/first/step_00000300")
    names: dict[str, Any] = {}
    exec(compile(block.code, block.where, "exec"), names)
    if "inverse_depth" in names:
        assert names["inverse_depth"].shape in ((48, 64), (2, 64, 96))


# ---- links, names, length

of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")


@of_every_page
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@of_every_page
def test_every_file_that_is_named_is_there(page):
    packages = "dpt|datasets_prep|pipelines|tune|tests|docs|benchmarks"
    named = re.findall(rf"`((?:{packages})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_every_setting_that_the_page_about_the_paper_names_exists():
    text = (REPOSITORY / "docs" / "paper.md").read_text(encoding="utf-8")
    jobs = "|".join(Experiment.model_fields)
    named = re.findall(rf"`((?:{jobs})(?:\.\w+)+)`", text)
    assert len(named) > 30
    for name in named:
        _look_up(Experiment(), name.split("."))


def _look_up(section: BaseModel, path: list[str]) -> None:
    for key in path:
        assert isinstance(section, BaseModel), f"{'.'.join(path)}: nothing below a value"
        assert key in type(section).model_fields, f"no setting {'.'.join(path)}"
        section = getattr(section, key)


def test_the_readme_is_short_and_leads_to_every_page():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_README_LINES
    missing = [page.name for page in PAGES[1:] if f"({os.path.relpath(page, REPOSITORY)})" not in text]
    assert missing == []


# ---- reliability
def test_the_tests_that_show_what_is_guaranteed_are_there():
    page = (REPOSITORY / "docs" / "reliability.md").read_text()
    promises = page.split("## What is not promised")[0].split("\n* ")[1:]
    for promise in promises:
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", promise)
        assert named, f"no test shows: {promise[:60]}"
        for path, test in named:
            assert f"\ndef {test}(" in (REPOSITORY / path).read_text(), f"{path}::{test}"
