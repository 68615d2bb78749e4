"""`dpt label`: unlabelled pictures → canonical shards, labelled by a model, the teacher.

The first half of Depth Anything's recipe (L. Yang et al., CVPR 2024, section 3.2): a student then learns from
labelled and pseudo-labelled shards together. As in `dpt prepare` a shard is a pure function of the plan and
is written whole or not at all, so a job that is killed and run again ends with the bytes of one clean run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

import dpt
from datasets_prep.errors import BadSample
from datasets_prep.ingest.forecast import Forecast, extrapolated
from datasets_prep.ingest.run import is_finished, write_dataset
from datasets_prep.plan.shards import DatasetPlan
from datasets_prep.progress import Progress
from datasets_prep.sources import SOURCES
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder
from dpt.weights.folder import CONFIG, WEIGHTS
from pipelines.cluster.session import connect
from pipelines.config import ConfigError, LabelConfig
from pipelines.labelling.labeller import Labeller
from pipelines.labelling.pictures import find_pictures
from pipelines.labelling.plan import Teacher, plan_labels, without
from pipelines.labelling.workers import find_duplicates, label_shards
from pipelines.tracking.model_reference import MODEL_SCHEME, BadModel, load_model, temporary_folder

_NAME = re.compile(r"[a-z0-9_]{1,64}")


@dataclass(frozen=True)
class LabelJob:
    """A teacher, loaded, and the plan of what it labels.

    Attributes:
        model: the teacher.
        files: its two files by name.
        settings: of the job.
        plan: of the shards; near-duplicates are still in it.
        out: path or URI of the folder of prepared datasets.
    """

    model: dpt.DPT
    files: dict[str, bytes]
    settings: LabelConfig
    plan: DatasetPlan
    out: str

    @property
    def is_finished(self) -> bool:
        """Whether the dataset is there already."""
        return is_finished(self.plan, self.out)

    def run(self, say: Callable[[str], None] = lambda line: None) -> Iterator[Progress]:
        """Label all pictures, on Ray; exhaust the iterator to finish the job.

        `say` takes a line on the first pass over all pictures, if there is one.

        Yields:
            the progress in pictures after each shard.

        Raises:
            ConfigError: if the workers do not fit on this machine.
            WrongLayout: if no picture could be used.
            StorageFailed: if storage fails for good.
        """
        plan = self.plan
        if not self.is_finished:
            (Folder(self.out) / plan.dataset).require_writable()
            connect()
            if self.settings.duplicates is not None:
                say("near-duplicates: reading all pictures")
                found = find_duplicates(plan, self.out, self.settings)
                say(f"near-duplicates: {len(found)} are left out")
                plan = without(plan, found)
        run_round = partial(label_shards, plan, self.out, self.files, self.settings, say)
        yield from write_dataset(plan, self.out, run_round)

    def forecast(self, device: str) -> Forecast:
        """What the job has to do, from a few pictures labelled on a `device`, on `settings.threads` cores."""
        torch.set_num_threads(self.settings.threads)
        labeller = Labeller(self.model, device, self.settings, self.plan.dataset)

        def row_of(sample: Sample, split: str) -> dict[str, object]:
            [(_, result)] = labeller.label([sample])
            if not isinstance(result, dict):
                raise BadSample(result.reason)
            return result

        return extrapolated(self.plan, self.out, row_of)


def plan_labelling(settings: LabelConfig, photos: Sequence[str], model: str, out: str, name: str) -> LabelJob:
    """Load the teacher, find the pictures and cut them into shards; writes nothing.

    Args:
        settings: of the job.
        photos: see `pipelines.labelling.pictures.find_pictures`.
        model: reference of the teacher, see `load_model`.
        out: path or URI of the folder to write `name`/ to.
        name: of the dataset.

    Raises:
        ConfigError: if the name cannot be one, or there is no picture.
        BadModel: if the model does not predict depth.
        TrackingError, NotFound: if there is no such model, or no such folder.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name: expected 1 to 64 of a-z, 0-9 and _, got {name!r}")
    if name in SOURCES:
        raise ConfigError(f"--name: {name} is a published dataset; choose another name")
    teacher = _pinned(model)
    loaded = load_model(teacher)
    if loaded.config.task != "depth":
        raise BadModel(f"{model}: this is a {loaded.config.task} model; labels need one of depth")
    with temporary_folder(loaded) as folder:
        files = {file: (folder / file).read_bytes() for file in (CONFIG, WEIGHTS)}
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()
    registered = teacher.startswith(MODEL_SCHEME) and not teacher.startswith(f"{MODEL_SCHEME}m-")
    reference, _, version = teacher.rpartition("/") if registered else (teacher, "", "")
    identity = Teacher(reference.removeprefix(MODEL_SCHEME), int(version) if version else None, digest)
    pictures = find_pictures(photos, out, settings)
    return LabelJob(
        loaded, files, settings, plan_labels(pictures, name, identity, loaded.config, settings), out
    )


def _pinned(model: str) -> str:
    if not model.startswith(MODEL_SCHEME):
        return model
    from pipelines.tracking.registry import pinned  # needs MLflow

    return pinned(model)
