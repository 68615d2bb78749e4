"""Which of the datasets in a folder a job takes: those that fit it; the others are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset, open_datasets
from datasets_prep.storage.folder import Folder
from pipelines.evaluation.mean_map import FITTED_ON
from pipelines.evaluation.metric_depth import require_metric_data
from pipelines.evaluation.segmentation import require_same_classes
from pipelines.tracking.model_reference import BadModel


def fitting_datasets(
    data: Sequence[str],
    mentioned: AbstractSet[str],
    misfit: Callable[[PreparedDataset], str],
    job: str,
    left_out: str,
    show: Callable[[str], None],
) -> list[PreparedDataset]:
    """The prepared datasets that a job takes, sorted by name.

    Args:
        data: prepared datasets, which are all taken, or folders of several, of which those are taken that fit
            or are mentioned.
        mentioned: names of datasets that are taken in any case.
        misfit: why the job does not take a dataset; empty if it does.
        job: what they have to fit, for the error.
        left_out: what happens to the others, as `not trained on`.
        show: called with a line that names the others, with reasons.

    Raises:
        NotADataset: if there is none, or none fits.
    """
    given = {Folder(uri).uri for uri in data}
    chosen, reasons = [], []
    for dataset in open_datasets(list(data)):
        # Its own folder, or that of one of its versions.
        places = {dataset.folder.uri, dataset.folder.uri.rpartition("/")[0]}
        named = dataset.name in mentioned or not given.isdisjoint(places)
        reason = "" if named else misfit(dataset)
        if reason:
            reasons.append(reason)
        else:
            chosen.append(dataset)
    if not chosen:
        raise NotADataset(f"nothing in {', '.join(data)} fits {job}: {'; '.join(reasons)}")
    if reasons:
        show(f"{left_out}: {'; '.join(reasons)}; --data DATASET takes one by name")
    return chosen


def evaluation_datasets(
    model: dpt.ModelConfig | None, split: str, data: Sequence[str], show: Callable[[str], None]
) -> list[PreparedDataset]:
    """The prepared datasets to evaluate a model, or the mean map, on, sorted by name.

    Args:
        model: its config, which decides what fits; None for the mean map.
        split: which they need.
        data: prepared datasets, which have to fit, or folders of several.
        show: as in `fitting_datasets`.

    Raises:
        NotADataset: if there is none, none fits, or one that is given by itself does not.
        BadModel: if one that is given by itself needs another model.
    """

    def misfit(dataset: PreparedDataset) -> str:
        try:
            _require_fit(model, split, dataset)
        except (NotADataset, BadModel) as error:
            return str(error)
        return ""

    job = f"{f'this {model.quantity} model' if model else 'the mean map'} and split={split}"
    chosen = fitting_datasets(data, frozenset(), misfit, job, "not evaluated on", show)
    for dataset in chosen:
        _require_fit(model, split, dataset)
    return chosen


def _require_fit(model: dpt.ModelConfig | None, split: str, dataset: PreparedDataset) -> None:
    kind = dataset.manifest.target_kind
    dataset.manifest.split(split)
    if model and model.task == "segmentation":
        require_same_classes(model, dataset)
    elif kind in ("ordinal", "labels"):
        what = f"this {model.task} model" if model else "the mean map"
        raise NotADataset(f"{dataset.name} has {kind} as ground truth, {what} needs depth maps")
    elif model is None:
        dataset.manifest.split(FITTED_ON)
    elif model.metric:
        require_metric_data([dataset])
