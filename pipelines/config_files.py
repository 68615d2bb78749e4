"""Configs from YAML files and `KEY=VALUE` arguments, with errors that name the key.

A config file describes an experiment: YAML with one section for each job, of which a command reads its own.

    train:
      model: {name: dpt_hybrid}
      steps: 1000

`--config` takes a path or the name of a file in `pipelines/configs/`; `KEY=VALUE` arguments override it, with
dots into sections: `dpt train … model.name=dpt_tiny optimizer.decoder_lr=3e-4`. An unknown key, a wrong type
or an invalid combination is a `ConfigError` that names the key and what is expected. Of a key given twice the
last value is taken, with a note.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from datasets_prep.errors import Note
from datasets_prep.strict_yaml import InvalidYaml, dump_yaml, load_yaml
from pipelines.config import ConfigError, Experiment

CONFIG_FOLDER = Path(__file__).parent / "configs"
TASK_CONFIGS = {"segmentation": "ade20k"}
"""Task → built-in config with the paper's settings; for depth these are the defaults."""

AnySection = TypeVar("AnySection", bound=BaseModel)


def load_section(
    job: str,
    section: type[AnySection],
    config: str | None,
    overrides: Sequence[str],
    preset: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> AnySection:
    """A job's config: defaults, overridden by preset, config file, options and `KEY=VALUE` in this order.

    Args:
        job: name of the section in `Experiment`.
        section: its type.
        config: path of a YAML file, name of a built-in one, or None.
        overrides: `KEY=VALUE` arguments; the value is YAML.
        preset: as `config`, which overrides it key by key.
        options: dotted key → value of a command-line option; None where it was not given.

    Raises:
        ConfigError: naming every invalid key.
    """
    content = _merged(_read(preset), _read(config))
    values = content.get(job) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{job}: expected a section with keys, got {values!r}")
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        _set(values, key, value)
    _override(values, overrides, {key: f"--{key.replace('_', '-')}" for key in given})
    result = getattr(_validate(Experiment, {**content, job: values}), job)
    assert isinstance(result, section)
    return result


def with_changes(section: AnySection, changes: Mapping[str, Any]) -> AnySection:
    """A copy of `section` with `changes`, dotted key → value.

    Raises:
        ConfigError: naming every invalid key.
    """
    values = section.model_dump()
    for key, value in changes.items():
        _set(values, key, value)
    return _validate(type(section), values)


def load_experiment(config: str | None, overrides: Sequence[str] = ()) -> Experiment:
    """All sections of a config file: `config` is its path or built-in name; None for the defaults.

    `overrides` are `JOB.KEY=VALUE` arguments.

    Raises:
        ConfigError: if it is missing or not YAML; naming every invalid key.
    """
    content = _read(config)
    _override(content, overrides)
    return _validate(Experiment, content)


def _override(
    values: dict[str, Any], overrides: Sequence[str], options: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Set the values of `KEY=VALUE` arguments; `options`, dotted key → name, have set theirs before."""
    given = dict(options)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"{override!r} is not KEY=VALUE")
        # The last one is taken, so that a script may append to the arguments that it always gives.
        for earlier in given:
            if f"{earlier}.".startswith(f"{key}."):
                warnings.warn(Note(f"{given[earlier]} is overridden by {override}"), stacklevel=2)
        given[key] = override
        try:
            _set(values, key, load_yaml(text))
        except InvalidYaml as error:
            raise ConfigError(f"{key}: {text!r}: {error}") from error


def _read(config: str | None) -> dict[str, Any]:
    """The raw content of a config file, {} for None."""
    if config is None:
        return {}
    path, built_in = Path(config), CONFIG_FOLDER / f"{config}.yaml"
    if not path.is_file() and not built_in.is_file():
        names = ", ".join(sorted(p.stem for p in CONFIG_FOLDER.glob("*.yaml")))
        raise ConfigError(f"no config file {config!r}; built-in ones are: {names}")
    path = path if path.is_file() else built_in
    try:
        content = load_yaml(path.read_bytes())
    except InvalidYaml as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: expected sections with keys, got {type(content).__name__}")
    return content or {}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two nested dicts in one; where both have a value, that of `above`."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


def to_yaml(section: BaseModel) -> str:
    """A resolved config `section` as YAML, with every value spelled out."""
    return dump_yaml(section.model_dump(mode="json"))


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in nested dicts."""
    *parents, leaf = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a section")
        values = child
    values[leaf] = value


def _validate(section: type[AnySection], values: dict[str, Any]) -> AnySection:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems: dict[tuple[str, ...], Any] = {}
        for problem in error.errors():
            location = _location(values, problem)
            if other := problems.get(location):  # of a value that may have several types
                problem["msg"] = f"{other['msg']} or {problem['msg'].removeprefix('Input should be ')}"
            problems[location] = problem
        # A list that may be a text is not one, and has an entry of a wrong type: the latter is said.
        inner = [at for at in problems if not any(at == other[: len(at)] != other for other in problems)]
        raise ConfigError("\n".join(_explain(section, at, problems[at]) for at in inner)) from error


def _location(values: Any, problem: Any) -> tuple[str, ...]:
    """The keys that lead to a `problem` of `values`: pydantic adds the types that a value may have."""
    keys = []
    for part in problem["loc"]:
        if part in values if isinstance(values, dict) else isinstance(part, int):
            values = values[part]
        elif problem["type"] != "missing":
            continue
        keys.append(str(part))
    return tuple(keys)


def _explain(section: type[BaseModel], location: Sequence[str], problem: Any) -> str:
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(section, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{key}: unknown key; {hint}there are: {', '.join(known)}"
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
        if not _keys_at(section, location):  # of a value; the text of a section's error begins with its key
            return f"{key}: {text}"
        return f"{key}.{text}" if key else text
    if problem["type"] == "model_type":
        return f"{key}: expected a section with keys, got {problem['input']!r}"
    if problem["type"] == "dict_type":
        return f"{key}: expected keys with values, {{KEY: VALUE}}, got {problem['input']!r}"
    text = problem["msg"].replace("a valid tuple", "a list in brackets").replace("Tuple", "list")
    if problem["loc"][-1] == "[key]":
        text = text.replace("Input", "key")
    return f"{key}: {text[0].lower()}{text[1:]}, got {problem['input']!r}"


def _keys_at(section: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Keys of the section at a location; [] if that is a value."""
    for part in location:
        if part.isdigit():  # an index into a tuple, whose item type is looked up already
            continue
        child = section.model_fields[part].annotation
        child = get_args(child)[0] if get_origin(child) is tuple else child
        if not (isinstance(child, type) and issubclass(child, BaseModel)):
            return []
        section = child
    return list(section.model_fields)
