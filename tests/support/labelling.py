"""`dpt label` in this process, without Ray: shard by shard, by the actor that Ray would start."""

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import dpt
from datasets_prep.ingest.run import write_dataset
from datasets_prep.manifest import PreparedDataset, open_dataset
from datasets_prep.storage.folder import Folder
from pipelines.config import LabelConfig
from pipelines.label import LabelJob, plan_labelling
from pipelines.labelling.plan import without
from pipelines.labelling.workers import LabellingActor, find_duplicates
from tests.support.preparing import without_ray

SMALL: dict[str, Any] = {"network_side": 64, "side": 48, "samples_per_shard": 4, "batch_size": 3}
NAME = "photos"


def blurred(seed: int, height: int = 72, width: int = 96) -> np.ndarray:
    """A smooth random picture, (H, W, 3) uint8 RGB."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, image: np.ndarray) -> Path:
    """Write the RGB `image` to `path`, by its ending; returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def planned(photos: list[Path | str], model: Path, out: Path, **settings: Any) -> LabelJob:
    """The job that labels `photos` as the dataset `NAME`."""
    chosen = LabelConfig(**{**SMALL, **settings})
    return plan_labelling(chosen, [str(photo) for photo in photos], str(model), str(out), NAME)


def labelled(job: LabelJob) -> PreparedDataset:
    """What the `job` writes."""
    plan = job.plan
    if job.settings.duplicates is not None:
        with pytest.MonkeyPatch.context() as patch:
            without_ray(patch)
            plan = without(plan, find_duplicates(plan, job.out, job.settings))
    version = (Folder(job.out) / plan.dataset / plan.version).uri
    actor = LabellingActor(job.files, job.settings, plan.dataset, plan.version, version, "cpu")
    for _ in write_dataset(
        plan,
        job.out,
        lambda shards: (json.loads(actor({"shard": pickle.dumps(shard)})["result"]) for shard in shards),
    ):
        pass
    return open_dataset(f"{job.out}/{NAME}")


def saved_model(folder: Path, **overrides: Any) -> Path:
    """A model of random weights in a new `folder`, which is returned."""
    dpt.save_model(dpt.create_model("dpt_tiny", **overrides).eval(), folder)
    return folder
