"""Files that this project writes and reads again: one good copy of each, and what the jobs make of it.

A consumer gets what is said to the user by `say`, and returns something that can be compared.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import dpt
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.ingest.shard_file import describe_shard, is_finished_shard, writing_shard
from datasets_prep.inspect.verify import verify
from datasets_prep.manifest import (
    LATEST_NAME,
    MANIFEST_NAME,
    QUARANTINE_NAME,
    Manifest,
    Shard,
    open_dataset,
    open_datasets,
)
from datasets_prep.schema import SCHEMA, encode_inverse_depth
from datasets_prep.storage import lease
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.listing_cache import cache_listing, cached_listing
from datasets_prep.storage.sealed import intact, sealed
from dpt.weights.folder import CONFIG, WEIGHTS
from dpt.weights.hugging_face import HUGGING_FACE_WEIGHTS
from pipelines import train
from pipelines.config import TrainConfig, TuneConfig
from pipelines.config_files import load_experiment, with_changes
from pipelines.loading.shard_reader import EVALUATION_COLUMNS, ShardReader
from pipelines.tracking.model_reference import load_model
from pipelines.training.checkpoint import OPTIMIZER_FILE, TRAINED_FILE, Snapshot, TrainingState
from pipelines.training.checkpoint_store import CheckpointStore, checkpoint_name
from tune.ablations import AblationTable, Row
from tune.plan import plan_sweep
from tune.sweep import read_plan

Say = Callable[[str], None]

_TINY = {
    "backbone_arguments": {"img_size": 32, "embed_dim": 8, "depth": 4, "num_heads": 1},
    "channels": (4, 4, 4, 4),
    "features": 4,
    "image_size": 32,
}
_TRAIN = {"model.name": "dpt_tiny", "model.pretrained": False, "crop": 64, "optimizer.objective": "average"}
_CONFIG = """\
train:
  model: {name: dpt_tiny, pretrained: false}
  steps: 100
  optimizer:
    decoder_lr: 1e-4
    betas: [0.9, 0.999]
predict:
  side: 384
"""


@dataclass(frozen=True)
class OwnFile:
    """A file that one of the jobs reads.

    Attributes:
        kind: for the table.
        path: of the good copy.
        read: what a job does with it.
        written_by_user: its changes are meant; there is nothing to compare with.
    """

    kind: str
    path: Path
    read: Callable[[Say], Any]
    written_by_user: bool = False

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return self.path.read_bytes()


def write_own_files(root: Path) -> list[OwnFile]:
    """Write all kinds of files below the folder `root`."""
    torch.manual_seed(0)
    return [*_prepared(root), *_run(root), *_sweep(root), *_model(root), *_others(root)]


def _prepared(root: Path) -> list[OwnFile]:
    """A dataset of two shards, its listing, and a shard of a version that is not finished."""
    raw, out = root / "raw", Folder(root / "shards" / "redweb")
    for name in ("a", "b", "c"):
        (raw / name).mkdir(parents=True)
        (raw / name / "x.png").write_bytes(name.encode())
    folder, version = Folder(raw), out / "v1"
    shards = []
    for split in ("train", "val"):
        with version.writing(f"{split}.parquet") as path:
            described = _write_shard(path, split)
        known = {key: described[key] for key in ("rows", "row_groups", "bytes", "sha256")}
        shards.append(Shard(name=f"{split}.parquet", split=split, **known))
    left_out = _write_quarantine(version)
    manifest = Manifest(
        "redweb", "affine", "v1", {"resize": "none"}, {"train": 3, "val": 3}, 1, left_out, {}, shards
    )
    version.write_text(MANIFEST_NAME, manifest.to_json())
    out.write_text(LATEST_NAME, sealed({"version": "v1"}))
    cache_listing(folder.files(), folder, out)
    unfinished = out / "v2"
    with unfinished.writing("train.parquet") as path:
        good = _write_shard(path, "train")

    def rows(say: Say) -> Any:
        (dataset,) = open_datasets([str(root / "shards")])
        reader = ShardReader([dataset], "train", EVALUATION_COLUMNS)
        found = [reader.rows(0, group) for group in range(len(reader.row_groups[0]))]
        reader.close()
        return [
            {key: bytes(v) if isinstance(v, memoryview) else v for key, v in row.items()}
            for row in chain.from_iterable(found)
        ]

    def inspected(say: Say) -> Any:
        inspection = verify(open_dataset(out.uri))
        for problem in inspection.problems:
            say(problem)
        return asdict(inspection)

    def resumed(say: Say) -> Any:
        """What a prepare of that version has at its end: a damaged shard is made again."""
        if not is_finished_shard(unfinished, "train.parquet", "version"):
            return good
        with unfinished.open("train.parquet") as file:
            return describe_shard(file)

    place = Path(version.path)
    return [
        OwnFile("shard", place / "train.parquet", rows),
        OwnFile("shard, inspected", place / "val.parquet", inspected),
        OwnFile("shard, unfinished", Path(unfinished.path) / "train.parquet", resumed),
        OwnFile("manifest", place / MANIFEST_NAME, rows),
        OwnFile("latest.json", Path(out.path) / LATEST_NAME, rows),
        OwnFile("quarantine", place / QUARANTINE_NAME, inspected),
        OwnFile(
            "listing",
            Path(out.path) / "listing.parquet",
            lambda say: dict(cached_listing(folder, out, False).files),
        ),
    ]


def _write_shard(path: Path, split: str) -> dict[str, Any]:
    ramp = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    texts = {name: "text" for name in SCHEMA.names if str(SCHEMA.field(name).type) == "string"} | {
        "split": split
    }
    pixels = {"image": encode_jpeg(np.dstack([ramp * 255] * 3).astype(np.uint8)), "height": 3, "width": 4}
    with writing_shard(path, "version") as shard:
        for number in range(3):
            values = {"inverse_depth": encode_inverse_depth(ramp), "scale": 0.5, "valid_share": 0.25 * number}
            shard.add({**texts, **pixels, **values, "sample_id": f"sample {number}"})
        shard.quarantine.append({"sample_id": "bad", "source_path": "bad.jpg", "reason": "truncated"})
        shard.notes["8 of 16 bits"] += 2
    with path.open("rb") as file:
        return describe_shard(file)


def _write_quarantine(version: Folder) -> str:
    with version.writing(QUARANTINE_NAME) as path:
        entry = {"sample_id": "bad", "source_path": "bad.jpg", "reason": "truncated"}
        pq.write_table(pa.Table.from_pylist([entry]), path)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(root: Path) -> list[OwnFile]:
    """A run of two checkpoints with a moving average, its record, and the lease of its owner."""
    folder = Folder(root / "runs" / "mine")
    identity, record = {"config": {"seed": 0}, "plan": 1}, {"tracking_uri": "sqlite:///x.db", "run_id": "0f"}
    store = CheckpointStore(folder, 2, print)
    names = (WEIGHTS, TRAINED_FILE, OPTIMIZER_FILE)
    for step in (10, 20):
        tensors = {name: {"x": torch.full((6,), float(step)), "y": torch.arange(3)} for name in names}
        store.save(Snapshot(TrainingState(step, identity, record, score=0.5), {"name": "test"}, tensors))
    store.close(20)
    folder.write_text(train.RUN_FILE, sealed({"identity": identity, "run": record}))
    owner = {"host": "node", "id": "0f", "machine": "node/boot", "pid": 1, "since": 1e9, "started": 1.0}
    folder.write_text("lease-00000001.json", sealed(owner))

    def newest(say: Say) -> Any:
        state = CheckpointStore(folder, 2, say).newest()
        return state and asdict(state)

    newest_folder = Path(folder.path) / checkpoint_name(20)
    files = [
        OwnFile(f"checkpoint: {name}", newest_folder / name, newest)
        for name in (*names, CONFIG, "state.json")
    ]
    return [
        *files,
        OwnFile("run.json", Path(folder.path) / train.RUN_FILE, partial(train._known_run, folder)),
        OwnFile(
            "lease", Path(folder.path) / "lease-00000001.json", lambda say: lease._text_of(folder, 1) or owner
        ),
    ]


def _sweep(root: Path) -> list[OwnFile]:
    """The plan of a sweep and the files of a trial; a cache that is made again has what it had."""
    config = with_changes(TrainConfig(), _TRAIN)
    rows = tuple(Row(name, {"model.overrides.readout": name}, {"mean": 0.1}) for name in ("ignore", "add"))
    table = AblationTable("readout", "Table 7", "two readouts", rows)
    plan = plan_sweep("mine", [table], open_datasets([str(root / "shards")]), config, TuneConfig())
    folder = Folder(root / "sweeps" / "mine")
    folder.write_text("sweep.yaml", plan.to_yaml())
    contents: dict[str, dict[str, Any]] = {
        "result.json": {
            "run_id": "0f",
            "stopped_early": None,
            "metrics": {"abs_rel/mean": 0.1, "x": float("nan")},
        },
        "trained.json": {"checkpoint": "runs/a/step_00000010", "model": "models:/m-1"},
        "record.json": {"battle/out00000001": None, "battle/out00000002": "no depth: 0.1"},
        "cuts.json": {"rate": 24, "bounds": [0, 29, 57], "problem": None},
    }
    for name, content in contents.items():
        folder.write_text(name, sealed(content))
    place = Path(folder.path)
    kept = [
        OwnFile(name, place / name, lambda say, name=name: repr(intact(folder, name, say)))
        for name in contents
    ]
    return [
        OwnFile(
            "sweep.yaml", place / "sweep.yaml", lambda say: read_plan("mine", str(root / "sweeps")).to_yaml()
        ),
        *kept,
    ]


def _model(root: Path) -> list[OwnFile]:
    """A model's folder, as a checkpoint and the registry have it too."""
    place = root / "model"
    dpt.save_model(dpt.create_model("dpt_tiny", **_TINY), place)
    read = partial(_loaded, place)
    return [
        OwnFile("model: config", place / CONFIG, read),
        OwnFile("model: weights", place / WEIGHTS, read),
    ]


def _loaded(place: Path, say: Say) -> Any:
    """Config and weights of a model's folder or file."""
    model = load_model(str(place), "dpt_tiny" if place.is_file() else None)
    weights = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    return model.config.to_dict(), weights


def _others(root: Path) -> list[OwnFile]:
    """What others write: a config file, a model's config without digest, and models in other layouts."""
    model = dpt.create_model("dpt_tiny", **_TINY)
    config, foreign = root / "experiment.yaml", root / "foreign"
    config.write_text(_CONFIG)
    dpt.save_model(model, foreign)
    plain = json.loads((foreign / CONFIG).read_text())
    del plain["digest"]
    (foreign / CONFIG).write_text(json.dumps(plain, indent=2))
    theirs, file = root / "huggingface", root / "tiny.pt"
    dpt.save_hugging_face(model, theirs)
    torch.save(dpt.create_model("dpt_tiny").state_dict(), file)
    return [
        OwnFile("config YAML", config, lambda say: load_experiment(str(config)).model_dump(), True),
        OwnFile("foreign: config", foreign / CONFIG, partial(_loaded, foreign), True),
        OwnFile("foreign: Hugging Face config", theirs / CONFIG, partial(_loaded, theirs), True),
        OwnFile("foreign: Hugging Face weights", theirs / HUGGING_FACE_WEIGHTS, partial(_loaded, theirs)),
        OwnFile("foreign: checkpoint of torch", file, partial(_loaded, file), True),
    ]


cv2.setNumThreads(1)
