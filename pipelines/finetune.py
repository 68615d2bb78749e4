"""`dpt finetune`: a model of relative depth → depth in metres, on KITTI, NYUv2 or your own dataset.

This is `dpt train` with the task `metric_depth` (`pipelines.tasks.metric_depth`), a config for each dataset,
a check that the images are those of the paper's tables, and an evaluation of the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datasets_prep.ingest.run import ingest_all
from datasets_prep.inspect.units import unit_hint
from datasets_prep.manifest import LATEST_NAME, MANIFEST_NAME, NotADataset, PreparedDataset, open_datasets
from datasets_prep.plan.shards import dataset_root, plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.folder import DESCRIPTION_NAME
from datasets_prep.storage.folder import Folder
from pipelines.cluster.session import connect
from pipelines.config import ConfigError, EvaluateConfig, TrainConfig
from pipelines.evaluation.metric_depth import evaluate_metric, require_metric_data
from pipelines.evaluation.official_splits import check_split, log_metric_results
from pipelines.evaluation.sets import FINE_TUNED, MetricProtocol
from pipelines.tracking.model_reference import load_checkpoint
from pipelines.tracking.registry import evaluation_run
from pipelines.train import TrainResult, train

DATASETS = {name: entry.sources[0] for name, entry in FINE_TUNED.items()}
"""Name on the command line → prepared dataset."""


@dataclass(frozen=True, slots=True)
class Finetuned:
    """A finished run: its `training`, and the last checkpoint's `metrics` on a `split` of the `dataset`.

    They are means over images; the split is "" if there is none to evaluate.
    """

    training: TrainResult
    dataset: str
    split: str
    metrics: dict[str, float]


def preset_of(target: str) -> str:
    """Name of the built-in config of a `target`: `kitti`, `nyu` or a folder."""
    return target if target in DATASETS else "folder"


def training_data(
    target: str, data: Sequence[str], out: str, settings: IngestSettings, show: Callable[[str], None]
) -> PreparedDataset:
    """The prepared dataset to train on; a raw dataset root with a `dataset.yaml` is prepared first.

    `target` is `kitti` or `nyu`, with `data` the prepared datasets (or folders of them) that it is among, or
    a folder, prepared or raw. A raw one is prepared with `settings`, its shards written to the folder `out`;
    `show` is called with each line of progress.

    Raises:
        NotADataset: if it is missing.
        ConfigError: if `data` is missing for `kitti` or `nyu`, or given for a folder.
        WrongLayout: if a raw dataset does not match its description.
    """
    if target not in DATASETS:
        if data:
            raise ConfigError(f"--data: only for kitti and nyu; {target} itself is the dataset")
        folder = Folder(target)
        raw = dataset_root("folder", target) if folder.exists() else folder
        if raw.exists(DESCRIPTION_NAME):
            plan = plan_ingest("folder", raw.uri, settings)
            show(f"{target}: preparing {plan.samples} samples in {out}/{plan.dataset}")
            connect()
            if hint := unit_hint(ingest_all(plan, out)):
                show(f"hint: {hint}")
            folder = Folder(out) / plan.dataset
        elif not folder.exists(LATEST_NAME) and not folder.exists(MANIFEST_NAME):
            kinds = f"kitti, nyu, a prepared dataset or a raw dataset root with {DESCRIPTION_NAME}"
            raise NotADataset(f"{target} is not {kinds}")
        (dataset,) = open_datasets([folder.uri])
        return dataset
    if not data:
        raise ConfigError(f"--data: missing, the shards of {target}; `dpt prepare` makes them")
    found = {d.name: d for d in open_datasets(list(data))}
    wanted = DATASETS[target]
    if wanted not in found:
        raise NotADataset(f"no dataset {wanted} in {', '.join(data)}; there are: {', '.join(found)}")
    return found[wanted]


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
    """Fine-tune a model on a `dataset`, evaluate it there and log both to MLflow, each to a run.

    In `config` the task is `metric_depth`, and `model.start` the model to start from. With `allow_missing`,
    images other than those of the official split are accepted. `name`, `storage`, `resume`, `allow_changes`
    and `show` are as in `pipelines.train.train`.

    Raises:
        WrongSplit: if the dataset lacks images of its official split.
        UserError: that `train` or `evaluate_metric` raises.
    """
    if config.task != "metric_depth":
        raise ConfigError(f"task: fine-tuning is for metric_depth, got {config.task}")
    if config.model.start is None:
        raise ConfigError("--model: missing, a model of relative depth to fine-tune")
    require_metric_data([dataset])
    check_split(dataset, allow_missing, show)
    training = train(config, [dataset.folder.uri], name, storage, resume, allow_changes, show)
    split = next((s for s in ("test", config.val_split) if s in dataset.manifest.samples), "")
    if not split:
        return Finetuned(training, dataset.name, "", {})
    settings, model = config.metric_depth, load_checkpoint(training.checkpoint)
    protocols = {dataset.name: MetricProtocol(settings.cap, settings.region, settings.kb_crop)}
    evaluation = EvaluateConfig(split=split, workers=config.most_workers, device=config.device)
    with evaluation_run(training.model_uri, "evaluate", evaluation, [dataset]) as run:
        results = evaluate_metric(model, [dataset], split, protocols, evaluation.workers, evaluation.device)
        log_metric_results(run, results, [dataset], split, protocols)
    return Finetuned(training, dataset.name, split, results[dataset.name])
