"""The data of the loading benchmark: ten prepared datasets of rendered scenes, 384 × 512.

The shards are those of `dpt prepare`, row group by row group; every peer's format is made of the same rows,
so that all decode the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from datasets_prep.ingest.normalize import normalize
from datasets_prep.ingest.shard_file import describe_shard, writing_shard
from datasets_prep.manifest import LATEST_NAME, MANIFEST_NAME, Manifest, Shard
from datasets_prep.sources.base import RawSample
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.sealed import sealed
from datasets_prep.synthetic import render_scene

DATASETS = 10
SHARDS = 4
"""Shards per dataset: some peers assign whole files to loading processes."""

HEIGHT, WIDTH = 384, 512

_IMAGE_NOISE, _DEPTH_NOISE = 6.0, 0.0005
"""Standard deviations, in levels of 256 and relative to the depth: rendered images are smooth, and with such
noise a row has about as many bytes (200 KB) as one of a photograph with measured depth."""


def make_shards(root: Path, rows: int) -> Path:
    """Create ten datasets of `rows` samples each below `root`, unless they exist; returns their folder."""
    folder = root / f"shards-{rows}"
    for index in range(DATASETS):
        if not (folder / _name(index) / LATEST_NAME).exists():
            with ProcessPoolExecutor() as pool:
                rendered = list(pool.map(_row, [index] * rows, range(rows)))
            _write(folder, index, rendered)
    return folder


def read_rows(shards: Path) -> Iterator[dict[str, Any]]:
    """Every row of all datasets, images and inverse depth still encoded."""
    for path in sorted(shards.glob("*/*/*.parquet")):
        yield from pq.ParquetFile(path).read().to_pylist()


def _name(dataset: int) -> str:
    return f"rendered{dataset}"


def _row(dataset: int, number: int) -> dict[str, Any]:
    cv2.setNumThreads(1)
    seed = 1000 * dataset + number
    scene, random = render_scene(seed, HEIGHT, WIDTH), np.random.default_rng(seed)
    image = scene.image + random.normal(0, _IMAGE_NOISE, scene.image.shape)
    depth = scene.depth * (1 + random.normal(0, _DEPTH_NOISE, scene.depth.shape)).astype(np.float32)
    bgr = np.clip(image[..., ::-1], 0, 255).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
    raw = RawSample(jpeg.tobytes(), depth, "depth", ~scene.sky, scene.sky)
    pixels = normalize(
        raw,
        "metric",
        side=HEIGHT,
        rule="shorter",
        jpeg_quality=95,
        min_valid_share=0.0,
        min_dynamic_range=1.0,
    )
    return {
        "sample_id": f"{_name(dataset)}/{number:05}",
        "dataset": _name(dataset),
        "split": "train",
        "source_path": f"{number:05}.jpg",
        "source_digest": hashlib.sha256(raw.image).hexdigest(),
        **pixels,
    }


def _write(folder: Path, dataset: int, rows: list[dict[str, Any]]) -> None:
    """Write shards and manifest, and last the file that marks the dataset as complete."""
    version = folder / _name(dataset) / "rendered"
    version.mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // SHARDS)
    shards = [
        _write_shard(version / f"train-{number:05}.parquet", rows[number * size : (number + 1) * size])
        for number in range(SHARDS)
    ]
    manifest = Manifest(_name(dataset), "metric", "rendered", {}, {"train": len(rows)}, 0, "", {}, shards)
    Folder(version).write_text(MANIFEST_NAME, manifest.to_json())
    Folder(folder / _name(dataset)).write_text(LATEST_NAME, sealed({"version": "rendered"}))


def _write_shard(path: Path, rows: list[dict[str, Any]]) -> Shard:
    with writing_shard(path, "rendered") as shard:
        for row in rows:
            shard.add(row)
    with path.open("rb") as file:
        described = describe_shard(file)
    known = {key: described[key] for key in ("rows", "row_groups", "bytes", "sha256")}
    return Shard(name=path.name, split="train", **known)
