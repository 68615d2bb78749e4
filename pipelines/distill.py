"""`dpt distill`: rounds of teacher → labels → student → comparison → challenger, as one MLflow run.

A round labels the pictures with the teacher, trains a student on the labelled and pseudo-labelled sets
together (L. Yang et al., Depth Anything, CVPR 2024, section 3; V2 for its losses), evaluates both on the
labelled sets' held-out split, and registers the student. The better of the two teaches the next round.

What is done is found again, so the same command resumes a job that broke off: shards by their manifest, a
training by its checkpoints, all else by the children of the job's run. The lineage of a student: its version
was registered from the model of the training run, whose inputs name the shards' manifest, which names the
teacher's version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as RunEntity

from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset, open_dataset, open_datasets
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.lease import owning
from pipelines.config import ConfigError, Experiment, TrainConfig
from pipelines.config_files import with_changes
from pipelines.evaluate import evaluate_and_log
from pipelines.label import plan_labelling
from pipelines.publish import logged_model, publish
from pipelines.tracking import registry
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_keys import MEAN, RELATIVE, MetricKey, keyed, with_mean
from pipelines.tracking.model_reference import MODEL_SCHEME, model_folder
from pipelines.train import TrainingStopped, train

ALIAS = "challenger"
PSEUDO_TRIM = 0.1
"""Share of the largest residuals of pseudo-labels that is ignored (Depth Anything V2, section 5)."""

_JOB, _TEACHER, _GIVEN, _PUBLISHED = "distill", "teacher", "teacher_given", "published"
_ERROR = str(MetricKey(RELATIVE, "abs_rel", MEAN))

Say = Callable[[str], None]


class JobExists(UserError):
    """There is a job of that name with another teacher."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to distill.

    Attributes:
        experiment: configs of labelling (`label`), training (`train`) and evaluation (`evaluate`).
        photos: unlabelled pictures, see `pipelines.labelling.pictures.find_pictures`.
        data: prepared datasets with ground truth, or folders of them.
        name: of the job; round N labels the dataset `NAME_N` and trains the run `NAME_N`.
        out: folder of the pseudo-labelled datasets; a path or URI.
        storage: folder of runs; a path or URI.
        registered: name of the registered model of the students.
        rounds: their number.
    """

    experiment: Experiment
    photos: Sequence[str]
    data: Sequence[str]
    name: str
    out: str
    storage: str
    registered: str
    rounds: int


@dataclass(frozen=True, slots=True)
class RoundResult:
    """A finished round.

    Attributes:
        teacher, student: references of the models, the student's by its version.
        version: of the student in the registry.
        teacher_error, student_error: mean over datasets of AbsRel on the held-out split.
    """

    teacher: str
    student: str
    version: int
    teacher_error: float
    student_error: float

    @property
    def better(self) -> str:
        """Reference of the model with the smaller error."""
        return self.student if self.student_error < self.teacher_error else self.teacher


def distill(request: Request, model: str, show: Say = print) -> list[RoundResult]:
    """Run all rounds that are not finished, the first with the teacher `model`; `show` takes each line.

    Raises:
        ConfigError, NotADataset, BadModel, NotFound: before anything is started.
        JobExists: if the job was started with another teacher.
        Owned: if another process does it.
        TrainingStopped: after a signal in a training; the command continues the job.
        TrainingFailed, StorageFailed: see `pipelines.train.train`, `pipelines.label.LabelJob.run`.
    """
    datasets = _labelled_sets(request)
    if not _started(request):  # nothing of a job whose pictures, teacher or name are mistaken
        plan_labelling(request.experiment.label, request.photos, model, request.out, f"{request.name}_1")
    with owning(Folder(request.storage) / request.name, f"job {request.name}", show):
        try:
            return _rounds(request, model, datasets, show)
        except TrainingStopped as error:
            raise TrainingStopped(f"job {request.name} is stopped; the same command continues it") from error


def _rounds(
    request: Request, model: str, datasets: Sequence[PreparedDataset], show: Say
) -> list[RoundResult]:
    parent, teacher = _parent(request, model, datasets)
    results, errors = [], dict[str, float]()
    with tracking.finishing(parent, killed_by=TrainingStopped):
        for number in range(1, request.rounds + 1):
            show(f"round {number} of {request.rounds}: {teacher} teaches")
            result = _Round(request, parent, number, teacher, datasets, errors, show).run()
            both = {"teacher_abs_rel": result.teacher_error, "student_abs_rel": result.student_error}
            parent.log_metrics(both, step=number)
            results.append(result)
            errors |= {result.teacher: result.teacher_error, result.student: result.student_error}
            teacher = result.better
    return results


def _started(request: Request) -> list[RunEntity]:
    """The job's run, if it was started before."""
    with suppress(tracking.NoStore):
        tracking.connect(create=False)
        query = f"tags.job = '{_JOB}' AND attributes.run_name = {tracking.quoted(request.name)}"
        return tracking.search_runs(query)
    return []


def _labelled_sets(request: Request) -> list[PreparedDataset]:
    """The datasets with ground truth: those of the request, without the job's own."""
    own = re.compile(rf"{re.escape(request.name)}_\d+")
    found = [dataset for dataset in open_datasets(list(request.data)) if not own.fullmatch(dataset.name)]
    if not found:
        raise ConfigError("--data: no dataset with ground truth, only the job's own pseudo-labels")
    for dataset in found:
        dataset.manifest.split(request.experiment.evaluate.split)
    return found


def _parent(request: Request, model: str, datasets: Sequence[PreparedDataset]) -> tuple[tracking.Run, str]:
    """The job's run and its first teacher, both as they were if it was started before."""
    uri = tracking.connect()
    if known := _started(request):
        run, tags = tracking.Run(uri, known[0].info.run_id), known[0].data.tags
        if tags[_GIVEN] != model:
            raise JobExists(
                f"job {request.name} was started with --model {tags[_GIVEN]}: choose another --name"
            )
        run.reopen()
        return run, tags[_TEACHER]
    teacher = registry.pinned(model)
    tags = {_TEACHER: teacher, _GIVEN: model}
    return tracking.start_run(request.name, _JOB, request.experiment, datasets, tags), teacher


def student_config(config: TrainConfig, pseudo: str) -> TrainConfig:
    """The `config` of a student's training with the pseudo-labelled dataset named `pseudo`.

    Its images are perturbed; of its residuals the largest are ignored, and gradients are matched on the other
    datasets only. What the config says of that dataset itself is kept.
    """
    changes: dict[str, Any] = {
        "perturb.datasets": sorted({*config.perturb.datasets, pseudo}),
        "loss.trims": {pseudo: PSEUDO_TRIM, **config.loss.trims},
        "loss.gradient_weights": {pseudo: 0.0, **config.loss.gradient_weights},
    }
    return with_changes(config, changes)


class _Round:
    """Round `number` of a job, in which `teacher` labels.

    Args:
        request: of the job.
        parent: its run.
        number: counted from 1.
        teacher: reference of the model.
        datasets: those with ground truth.
        errors: model → AbsRel, of those evaluated in earlier rounds.
        show: takes each line.
    """

    def __init__(
        self,
        request: Request,
        parent: tracking.Run,
        number: int,
        teacher: str,
        datasets: Sequence[PreparedDataset],
        errors: Mapping[str, float],
        show: Say,
    ) -> None:
        self._errors = errors
        self._request, self._parent, self._number, self._teacher = request, parent, number, teacher
        self._datasets, self._show, self._name = datasets, show, f"{request.name}_{number}"
        self._tags = {tracking.PARENT: parent.run_id, _TEACHER: teacher}

    def run(self) -> RoundResult:
        """Label, train, evaluate and publish, as far as that is not done yet."""
        pseudo = self._label()
        trained = self._train(pseudo)
        student = f"{MODEL_SCHEME}{logged_model(trained).model_id}"
        self._show("evaluating teacher and student")
        errors = [self._error(reference) for reference in (self._teacher, student)]
        self._show(f"registering the student as a version of {self._request.registered}")
        version = self._publish(trained, student, pseudo)
        self._show(
            f"round {self._number}: AbsRel {errors[1]:.4f} of the student, {errors[0]:.4f} of the teacher; "
            f"version {version} of {self._request.registered}"
        )
        reference = f"{MODEL_SCHEME}{self._request.registered}/{version}"
        return RoundResult(self._teacher, reference, version, *errors)

    def _label(self) -> PreparedDataset:
        request = self._request
        settings = request.experiment.label
        job = plan_labelling(settings, request.photos, self._teacher, request.out, self._name)
        if not job.is_finished:
            self._show(f"{self._name}: labelling {job.plan.samples} pictures")
        for state in job.run(self._show):
            self._show(f"{self._name}: labelled {state.done} of {state.total}, left out {state.rejected}")
        dataset = open_dataset(f"{request.out.rstrip('/')}/{job.plan.dataset}/{job.plan.version}")
        if not self._finished(f"label {self._name}"):
            run = tracking.start_run(f"label {self._name}", "label", settings, [dataset], self._tags)
            with tracking.finishing(run):
                manifest = dataset.manifest
                counts = {"pictures": sum(manifest.samples.values()), "left_out": manifest.quarantined}
                run.log_metrics({**counts, **manifest.statistics}, step=0)
        return dataset

    def _train(self, pseudo: PreparedDataset) -> str:
        """Train the student; returns the id of its run."""
        if known := self._finished(self._name):
            return str(known.info.run_id)
        config = student_config(self._request.experiment.train, pseudo.name)
        data = [dataset.folder.uri for dataset in (*self._datasets, pseudo)]
        storage, resume = self._request.storage, True
        return train(config, data, self._name, storage, resume, show=self._show, tags=self._tags).run.run_id

    def _error(self, reference: str) -> float:
        """AbsRel of a model on the held-out split, in the mean over the datasets with ground truth."""
        if reference in self._errors:
            return self._errors[reference]
        if known := self._finished(f"evaluate {reference}"):
            return float(known.data.metrics[_ERROR])
        with model_folder(reference) as folder:
            config = self._request.experiment.evaluate
            results = evaluate_and_log(config, folder, reference, self._datasets, self._tags)
        return keyed(RELATIVE, with_mean(results))[_ERROR]

    def _publish(self, run_id: str, student: str, pseudo: PreparedDataset) -> int:
        """Register the student as the challenger, once; returns its version."""
        name, client, tag = self._request.registered, MlflowClient(), f"{_PUBLISHED}_{self._number}"
        if known := client.get_run(self._parent.run_id).data.tags.get(tag):
            return int(known)
        version = registry.version_of(name, student) or publish(run_id, name, None).version
        for key, value in {_TEACHER: self._teacher, "pseudo_labels": pseudo.manifest.digest}.items():
            client.set_model_version_tag(name, str(version), key, value)
        registry.set_alias(name, ALIAS, version)
        client.set_tag(self._parent.run_id, tag, str(version))
        return version

    def _finished(self, name: str) -> RunEntity | None:
        """The finished child of that name of the job's run, if there is one."""
        child = f"tags.`{tracking.PARENT}` = '{self._parent.run_id}' AND attributes.status = 'FINISHED'"
        found = tracking.search_runs(f"{child} AND attributes.run_name = {tracking.quoted(name)}")
        return found[0] if found else None
