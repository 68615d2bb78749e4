"""`dpt finetune`: a network of relative depth → depth in metres, on KITTI, NYUv2 or a folder of one's own.

This is `dpt train` with the task `metric_depth` (`pipelines.tasks.metric_depth`), a config for each dataset,
a check that the data is what the paper's tables are about, and an evaluation of the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dpt
from datasets_prep.ingest.run import ingest_all
from datasets_prep.manifest import LATEST_NAME, MANIFEST_NAME, NotADataset, PreparedDataset, open_datasets
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.folder import DESCRIPTION_NAME
from datasets_prep.storage.folder import Folder
from pipelines.cluster.session import connect
from pipelines.config import ConfigError, TrainConfig
from pipelines.evaluation.metric_depth import METRICS, evaluate_metric, require_metric_data
from pipelines.evaluation.official_splits import check_split
from pipelines.evaluation.sets import FINE_TUNED, MetricProtocol
from pipelines.tracking.model_reference import load_trained
from pipelines.train import TrainResult, train

DATASETS = {name: entry.sources[0] for name, entry in FINE_TUNED.items()}
"""Name on the command line → prepared dataset."""


@dataclass(frozen=True, slots=True)
class Finetuned:
    """A finished run.

    Attributes:
        training: its checkpoint and model.
        dataset: name of the dataset.
        split: that the metrics are of; "" if there was none to evaluate.
        metrics: of the last checkpoint, means over images.
    """

    training: TrainResult
    dataset: str
    split: str
    metrics: dict[str, float]


def preset_of(target: str) -> str:
    """Name of the built-in config of a dataset."""
    return target if target in DATASETS else "folder"


def training_data(
    target: str, data: Sequence[str], out: str, settings: IngestSettings, show: Callable[[str], None]
) -> PreparedDataset:
    """The prepared dataset to train on; a raw folder with a `dataset.yaml` is prepared first.

    Args:
        target: `kitti`, `nyu`, or a folder: prepared, or raw.
        data: for the first two, prepared datasets or folders of them, one of which is the wanted one.
        out: where shards of a raw folder go.

    Raises:
        NotADataset: if there is none.
        ConfigError: if `data` is missing, or given where it is not wanted.
        WrongLayout: if a raw folder is not as its description says.
    """
    if target not in DATASETS:
        if data:
            raise ConfigError(
                f"--data: {target} itself is the data; only kitti and nyu have to be told where"
            )
        return _own_dataset(target, out, settings, show)
    if not data:
        raise ConfigError(f"--data: where are the shards of {target}? `dpt prepare` makes them")
    found = {d.name: d for d in open_datasets(list(data))}
    wanted = DATASETS[target]
    if wanted not in found:
        raise NotADataset(f"no dataset {wanted} in {', '.join(data)}; there are: {', '.join(found)}")
    return found[wanted]


def _own_dataset(
    target: str, out: str, settings: IngestSettings, show: Callable[[str], None]
) -> PreparedDataset:
    folder = Folder(target)
    if folder.exists(DESCRIPTION_NAME):
        plan = plan_ingest("folder", target, settings)
        show(f"{target}: {plan.samples} samples are prepared in {out}/{plan.dataset}")
        connect()
        ingest_all(plan, out)
        folder = Folder(out) / plan.dataset
    elif not folder.exists(LATEST_NAME) and not folder.exists(MANIFEST_NAME):
        raise NotADataset(
            f"{target} is neither kitti nor nyu, nor prepared, nor a raw folder with {DESCRIPTION_NAME}"
        )
    (dataset,) = open_datasets([folder.uri])
    return dataset


def finetune(
    config: TrainConfig,
    dataset: PreparedDataset,
    name: str,
    storage: str,
    resume: bool = False,
    allow_changes: bool = False,
    allow_missing: bool = False,
    show: Callable[[str], None] = print,
) -> Finetuned:
    """Fine-tune a model, evaluate it and log both to MLflow.

    Args:
        config: of the task `metric_depth`; `model.start` names the model to start from.
        allow_missing: train and evaluate on other images than those of the official split.
        name, storage, resume, allow_changes, show: as `pipelines.train.train`.

    Raises:
        WrongSplit: if the dataset has not the images of its official split.
        And all that `train` and `evaluate_metric` raise.
    """
    if config.task != "metric_depth":
        raise ConfigError(f"task: fine-tuning is for metric_depth, got {config.task}")
    if config.model.start is None:
        raise ConfigError("--model: which model of relative depth is to be fine-tuned?")
    require_metric_data([dataset])
    check_split(dataset, allow_missing, show)
    training = train(config, [dataset.folder.uri], name, storage, resume, allow_changes, show)
    split = next((s for s in ("test", config.val_split) if s in dataset.manifest.samples), "")
    if not split:
        return Finetuned(training, dataset.name, "", {})
    metrics = _evaluate(config, dataset, split, load_trained(training.checkpoint))
    logged = {f"{split}/{metric}/{dataset.name}": metrics[metric] for metric in (*METRICS, "images")}
    training.run.log_metrics(logged, step=config.steps)
    return Finetuned(training, dataset.name, split, metrics)


def _evaluate(config: TrainConfig, dataset: PreparedDataset, split: str, model: dpt.DPT) -> dict[str, float]:
    settings = config.metric_depth
    protocol = MetricProtocol(settings.cap, settings.region, settings.kb_crop)
    results = evaluate_metric(
        model, [dataset], split, {dataset.name: protocol}, config.most_workers, config.device
    )
    return results[dataset.name]
