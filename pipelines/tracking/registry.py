"""`dpt models`, `dpt promote`, `dpt rollback`: what is registered, and which version an alias names.

An alias such as `champion` is what others load, so it keeps its kind (task and unit, `ModelKind`), and
`dpt promote` moves it only to a version that is not worse than the one that has it. Versions are compared by
a metric (`metric/abs_rel/nyuv2`, `relative/abs_rel/mean`) of the training run's last validation, or of a
later `dpt evaluate --model models:/NAME/VERSION`; and only by measurements with the same data, split, caps
and input size.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion as RegisteredVersion
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved
from pydantic import BaseModel

from datasets_prep.manifest import PreparedDataset
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_keys import MEAN, METRIC, PROTOCOLS, RELATIVE, SEGMENTATION, SKILL, MetricKey
from pipelines.tracking.model_kind import ModelKind
from pipelines.tracking.model_reference import MODEL_SCHEME
from pipelines.tracking.runs import NoStore, TrackingError

EVALUATED_TAG = "evaluated_model"
"""Tag of a run of `dpt evaluate`: the logged model that it evaluated, as `models:/m-…`."""

_HISTORY_TAG = "previous."
_HISTORY_LENGTH = 20
_HIGHER_IS_BETTER = {"delta1", "delta2", "delta3", "pix_acc", "miou", SKILL}
_LOWER_IS_BETTER = {"abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "whdr"}
_LOWER_IS_BETTER |= {f"delta{power}_error" for power in (1, 2, 3)}
_PIXELS_TAG = "pixels."
"""Prefix of tags of a run: dataset → which of its pixels were compared."""

_OFFICIAL_TAG = "paper_sets"
"""Tag of a run: the datasets whose figures belong into the paper's tables, separated by spaces."""

_SIZE = ("side", "rule")
_SETTINGS = {
    RELATIVE: ("split", *_SIZE, "caps.metres", "caps.nearest"),
    METRIC: ("split", *_SIZE),
    SEGMENTATION: ("split", *_SIZE, "inference.scales", "inference.flip"),
}
"""Protocol → settings that a measurement by it depends on besides data, pixels and model."""

_LOGGED_AS = {"split": ("split", "val_split")}
"""Setting → parameters that jobs log it as, where they differ from its name."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The metrics of the run `run_id`, and the conditions under which they were measured.

    Attributes:
        metrics: name as in `pipelines.tracking.metric_keys`, such as `metric/abs_rel/nyuv2` → value.
        data: dataset → digest of its manifest.
        settings: setting in `_SETTINGS` → its value as logged.
        pixels: dataset → crop and cap of metric depth.
        official: datasets whose figures belong into the paper's tables.
    """

    run_id: str
    metrics: dict[str, float]
    data: dict[str, str]
    settings: dict[str, str]
    pixels: dict[str, str]
    official: frozenset[str]

    def conditions(self, metric: str) -> dict[str, str]:
        """Data and settings that must be equal for two values of `metric` to be comparable."""
        key = MetricKey.parse(metric)
        assert key is not None  # others are no measurements
        data = {key.dataset: self.data[key.dataset]} if key.dataset in self.data else self.data
        pixels = {f"pixels of {name}": self.pixels[name] for name in data if name in self.pixels}
        return data | pixels | {name: self.settings[name] for name in _SETTINGS.get(key.protocol, _SIZE)}

    def paper_figures(self) -> dict[str, float]:
        """Those of `metrics` that belong into the paper's tables."""
        return {name: value for name, value in self.metrics.items() if name.split("/")[2] in self.official}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model.

    Attributes:
        name, version: of the registered model, and the number of its version.
        aliases: that name this version, sorted.
        run_id, run_name: of the training run.
        kind: what it predicts.
        git_commit: that it was trained with, `-dirty` if the tree had changes; `unknown` outside a
            repository.
        data: dataset that it was trained on → digest of its manifest.
        measurements: newest first, the training run's last.
    """

    name: str
    version: int
    aliases: list[str]
    run_id: str
    run_name: str
    kind: ModelKind
    git_commit: str
    data: dict[str, str]
    measurements: list[Measurement]

    def metrics(self) -> dict[str, float]:
        """The newest value of every metric."""
        return dict(ChainMap(*(measurement.metrics for measurement in self.measurements)))

    def as_json(self) -> dict[str, Any]:
        """As plain data, which `dpt models --json` prints."""
        fields = ("name", "version", "aliases", "run_id", "run_name", "git_commit", "data")
        plain = {field: getattr(self, field) for field in fields}
        return plain | self.kind.tags | {"metrics": self.metrics()}


@dataclass(frozen=True, slots=True)
class Move:
    """An `alias` of the model `name` that moved from version `old` (None if it is new) to `new`."""

    name: str
    alias: str
    old: int | None
    new: int

    def __str__(self) -> str:
        before = "" if self.old is None else f" (before: version {self.old})"
        return f"{MODEL_SCHEME}{self.name}@{self.alias} is now version {self.new}{before}"


def list_models(name: str | None = None) -> list[ModelVersion]:
    """All versions of the registered model `name`, or of all models: by name, newest first.

    Raises:
        TrackingError: if there is no such model, or no store.
    """
    tracking.connect(create=False)
    models = [_registered(name)] if name else mlflow.search_registered_models()
    # Logged model → the finished runs that evaluated it, newest first.
    evaluations: dict[str, list[Run]] = {}
    tagged = f"tags.{EVALUATED_TAG} LIKE '{MODEL_SCHEME}%'"
    for run in tracking.search_runs(f"{tagged} AND attributes.status = 'FINISHED'"):
        evaluations.setdefault(run.data.tags[EVALUATED_TAG], []).append(run)
    return [
        _describe(model, version, evaluations)
        for model in models
        for version in sorted(_versions(model.name), key=lambda version: -int(version.version))
    ]


def models_to_choose() -> str:
    """What there is to give as `--model`, in one line: addresses of registered models, and other sources."""
    try:
        tracking.connect(create=False)
        registered = [address for model in mlflow.search_registered_models() for address in _addresses(model)]
        there = f"in {tracking.store_name()} there are: {_names(registered)}"
    except TrackingError as error:
        there = str(error)
    return (
        "give a model's folder or file, hf-hub:OWNER/NAME (hf-hub:Intel/dpt-large), "
        f"or a registered model; {there}"
    )


def _addresses(model: RegisteredModel) -> list[str]:
    """`models:/NAME@ALIAS` for every alias, or `models:/NAME/VERSION` of the newest version without any."""
    newest = max((int(version.version) for version in _versions(model.name)), default=None)
    tails = [f"@{alias}" for alias in model.aliases] or ([f"/{newest}"] if newest else [])
    return [f"{MODEL_SCHEME}{model.name}{tail}" for tail in tails]


def promote(name: str, wanted: str, alias: str, metric: str | None = None, force: bool = False) -> Move:
    """Move an `alias` of the model `name` to a version that is not worse than the one that has it now.

    `wanted` is the version's number or another alias of it. They are compared by `metric`, such as
    `relative/abs_rel/mean` (None for that of the version's kind), in the newest comparable measurements of
    both; with `force` they are not.

    Raises:
        TrackingError: if there is no such version, if it is of another kind or worse, or if they cannot be
            compared.
    """
    tracking.connect(create=False)
    check_alias(name, alias)
    version = find_version(name, wanted)
    holder = _registered(name).aliases.get(alias)
    if holder is not None and int(holder) != version and not force:
        kind = _kind(name, version)
        require_kind(name, alias, kind)
        _require_not_worse(name, version, int(holder), metric or kind.compared_by)
    return set_alias(name, alias, version)


def rollback(name: str, alias: str) -> Move:
    """Move an `alias` of the model `name` back to the version that had it before, whatever its metrics.

    Raises:
        TrackingError: if no earlier version with it is known or left.
    """
    tracking.connect(create=False)
    model = _registered(name)
    holder = model.aliases.get(alias)
    if holder is None:
        raise TrackingError(f"{name} has no alias {alias!r}; it has: {_names(model.aliases)}")
    left = {int(version.version) for version in _versions(name)} - {int(holder)}
    earlier = [version for version in _history(model, alias) if version in left]
    if not earlier:
        raise TrackingError(f"{name}@{alias}: no earlier version is known that had this alias")
    return _move(model, alias, earlier[-1], earlier[:-1])


def check_alias(name: str, alias: str) -> None:
    """Check that MLflow takes an `alias` of the model `name`; `latest` and `v1` it keeps for itself.

    Raises:
        TrackingError: if it does not.
    """
    try:
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
    except MlflowException as error:
        raise TrackingError(f"{name}@{alias}: {str(error).splitlines()[0]}") from error


def require_kind(name: str, alias: str, kind: ModelKind) -> None:
    """Check that the version with an `alias` of the model `name`, if there is one, is of this `kind`.

    Raises:
        TrackingError: if it is of another kind; naming both.
    """
    try:
        model = MlflowClient().get_registered_model(name)
    except MlflowException:  # not registered yet
        return
    holder = model.aliases.get(alias)
    if holder is not None and (theirs := _kind(name, int(holder))) != kind:
        raise TrackingError(
            f"{name}@{alias} is version {holder}, which predicts {theirs}; this model predicts {kind}: "
            "give it another name (or alias), or --force"
        )


def set_alias(name: str, alias: str, version: int) -> Move:
    """Move an `alias` of the model `name` to a `version` without comparing; `rollback` can undo it.

    Raises:
        TrackingError: if MLflow refuses the alias or the version.
    """
    model = _registered(name)
    holder = model.aliases.get(alias)
    history = _history(model, alias)
    if holder is not None and int(holder) != version:
        history.append(int(holder))
    return _move(model, alias, version, history)


def find_version(name: str, wanted: str) -> int:
    """The number of a version of the model `name`; `wanted` is that number or an alias.

    Raises:
        TrackingError: if there is no such model, version or alias.
    """
    aliases = _registered(name).aliases
    if wanted in aliases:
        return int(aliases[wanted])
    numbers = sorted(int(version.version) for version in _versions(name))
    if wanted.isdecimal() and int(wanted) in numbers:
        return int(wanted)
    known = f"versions {', '.join(map(str, numbers))}; aliases: {_names(aliases)}"
    raise TrackingError(f"{name} has no version or alias {wanted!r}; it has {known}")


def pinned(reference: str) -> str:
    """`models:/NAME@ALIAS` as `models:/NAME/VERSION`, which no promotion changes; else `reference` itself.

    Raises:
        TrackingError: if there is no such registered model, version or alias.
    """
    name, wanted = _split(reference)
    if not (reference.startswith(MODEL_SCHEME) and name):
        return reference
    tracking.connect(create=False)
    return f"{MODEL_SCHEME}{name}/{find_version(name, wanted)}"


@contextmanager
def evaluation_run(
    reference: str, job: str, settings: BaseModel, inputs: Sequence[PreparedDataset | tracking.RunInput]
) -> Iterator[tracking.Run]:
    """The MLflow run of an evaluation of a model, with the status by which its block ends.

    Args:
        reference: of the model.
        job: the command, whose config `settings` is.
        settings: logged as parameters.
        inputs: what it is evaluated on.
    """
    run = tracking.start_run(f"evaluate {reference}", job, settings, inputs)
    note_evaluation(run, reference)
    with tracking.finishing(run):
        yield run


def note_protocol(run: tracking.Run, pixels: Mapping[str, str], official: Collection[str]) -> None:
    """Tag a `run` with how it measured.

    Args:
        run: of an evaluation or training.
        pixels: dataset → which pixels were compared, where that is not a setting of the run.
        official: datasets whose figures belong into the paper's tables.
    """
    tags = {f"{_PIXELS_TAG}{name}": text for name, text in pixels.items()}
    for key, value in {**tags, **({_OFFICIAL_TAG: " ".join(official)} if official else {})}.items():
        MlflowClient(run.tracking_uri).set_tag(run.run_id, key, value)


def note_evaluation(run: tracking.Run, model: str) -> None:
    """Tag a `run` of `dpt evaluate` as an evaluation of `model`, if that is registered or logged in MLflow.

    That is `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/m-…`; another reference is ignored.

    Raises:
        TrackingError: if there is no such registered model, version or alias.
    """
    if not model.startswith(MODEL_SCHEME):
        return
    client = MlflowClient()
    name, wanted = _split(model)
    if name:
        # The logged model of the version, as `models:/m-…`.
        model = str(client.get_model_version(name, str(find_version(name, wanted))).source)
    client.set_tag(run.run_id, EVALUATED_TAG, model)


def measurements_of(reference: str) -> list[Measurement]:
    """All measurements of a model, newest first.

    `reference` is `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or what `dpt evaluate` was given as --model.

    Raises:
        TrackingError: if there is no such registered model, version or alias.
    """
    name, wanted = _split(reference)
    registered = reference.startswith(MODEL_SCHEME)
    try:
        tracking.connect(create=False)
    except NoStore:
        if registered:
            raise
        return []
    if registered and name:
        number = find_version(name, wanted)
        return next(found.measurements for found in list_models(name) if found.version == number)
    run_name = tracking.quoted(f"evaluate {reference}")
    query = f"attributes.run_name = {run_name} AND attributes.status = 'FINISHED'"
    return [_measurement(run) for run in tracking.search_runs(query)]


def _split(reference: str) -> tuple[str, str]:
    """`models:/NAME@ALIAS` or `models:/NAME/VERSION` → its two parts; of `models:/m-…` the first is empty."""
    address = reference.removeprefix(MODEL_SCHEME)
    name, _, wanted = address.partition("@") if "@" in address else address.rpartition("/")
    return name, wanted


def _require_not_worse(name: str, version: int, holder: int, metric: str) -> None:
    key = MetricKey.parse(metric)
    if key is None or key.metric not in _LOWER_IS_BETTER | _HIGHER_IS_BETTER:
        known = ", ".join(sorted(_LOWER_IS_BETTER | _HIGHER_IS_BETTER))
        raise TrackingError(
            f"{metric}: not a metric to compare by; expected PROTOCOL/METRIC/DATASET with PROTOCOL one of "
            f"{', '.join(PROTOCOLS)}; METRIC one of {known}; DATASET a name or {MEAN}"
        )
    versions = {found.version: found for found in list_models(name)}
    mine, theirs = _comparable(versions[version], versions[holder], metric)
    if mine > theirs if key.metric in _LOWER_IS_BETTER else mine < theirs:
        raise TrackingError(
            f"{name} version {version} is worse than version {holder}: "
            f"{metric} {mine:.4f} against {theirs:.4f}; --force moves the alias anyway"
        )


def _comparable(mine: ModelVersion, theirs: ModelVersion, metric: str) -> tuple[float, float]:
    """The newest values of a metric of two versions that were measured under the same conditions."""
    sides = [_measured(version, metric) for version in (mine, theirs)]
    for ours, other in product(*sides):
        if ours.conditions(metric) == other.conditions(metric):
            return ours.metrics[metric], other.metrics[metric]
    a, b = (side[0].conditions(metric) for side in sides)
    difference = ", ".join(key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key))
    raise TrackingError(
        f"{metric} of {mine.name} versions {mine.version} and {theirs.version} cannot be compared: "
        f"{difference} differ; evaluate both alike, or --force"
    )


def _measured(version: ModelVersion, metric: str) -> list[Measurement]:
    found = [m for m in version.measurements if math.isfinite(m.metrics.get(metric, math.nan))]
    if not found:
        address = f"{MODEL_SCHEME}{version.name}/{version.version}"
        raise TrackingError(
            f"{version.name} version {version.version} has no {metric}: "
            f"run `dpt evaluate --model {address}`, or --force"
        )
    return found


def _move(model: RegisteredModel, alias: str, version: int, history: list[int]) -> Move:
    client, old = MlflowClient(), model.aliases.get(alias)
    remembered = ",".join(map(str, history[-_HISTORY_LENGTH:]))
    try:
        client.set_registered_model_alias(model.name, alias, str(version))
        client.set_registered_model_tag(model.name, f"{_HISTORY_TAG}{alias}", remembered)
    except MlflowException as error:
        raise TrackingError(f"{model.name}@{alias}: {str(error).splitlines()[0]}") from error
    return Move(model.name, alias, None if old is None else int(old), version)


def _history(model: RegisteredModel, alias: str) -> list[int]:
    """Versions that had an alias before, the most recent last."""
    text = model.tags.get(f"{_HISTORY_TAG}{alias}", "")
    return [int(version) for version in text.split(",") if version]


def _registered(name: str) -> RegisteredModel:
    try:
        return MlflowClient().get_registered_model(name)
    except MlflowException as error:
        names = _names(model.name for model in mlflow.search_registered_models())
        raise TrackingError(f"no registered model {name!r}; there are: {names}") from error


def _versions(name: str) -> list[RegisteredVersion]:
    return list(mlflow.search_model_versions(filter_string=f"name='{name}'"))


def _describe(
    model: RegisteredModel, version: RegisteredVersion, evaluations: Mapping[str, list[Run]]
) -> ModelVersion:
    run, number = MlflowClient().get_run(str(version.run_id)), int(version.version)
    return ModelVersion(
        name=model.name,
        version=number,
        aliases=sorted(alias for alias, holder in model.aliases.items() if int(holder) == number),
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        kind=ModelKind.of_tags(version.tags),
        git_commit=run.data.tags.get("git_commit", "unknown"),
        data=_data(run),
        measurements=[_measurement(one) for one in (*evaluations.get(str(version.source), []), run)],
    )


def _measurement(run: Run) -> Measurement:
    """Measurement of a run of `dpt evaluate` or `dpt train`: its metrics of datasets, and their means."""
    data, parameters, tags = _data(run), run.data.params, run.data.tags
    metrics = {
        name: value
        for name, value in run.data.metrics.items()
        if (key := MetricKey.parse(name)) and key.dataset in {*data, MEAN}
    }
    settings = {
        name: next((parameters[key] for key in _LOGGED_AS.get(name, (name,)) if key in parameters), "None")
        for name in {*_SIZE, *(name for names in _SETTINGS.values() for name in names)}
    }
    pixels = {
        tag.removeprefix(_PIXELS_TAG): text for tag, text in tags.items() if tag.startswith(_PIXELS_TAG)
    }
    official = frozenset(tags.get(_OFFICIAL_TAG, "").split())
    return Measurement(run.info.run_id, metrics, data, settings, pixels, official)


def _data(run: Run) -> dict[str, str]:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {entry.dataset.name: entry.dataset.digest for entry in inputs}


def _kind(name: str, version: int) -> ModelKind:
    return ModelKind.of_tags(MlflowClient().get_model_version(name, str(version)).tags)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
