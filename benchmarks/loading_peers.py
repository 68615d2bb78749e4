"""The peers of the loading benchmark, set up as their documentation says; `benchmarks/loading.py` runs them.

They run in their own environment (`benchmarks/requirements-peers.txt`), as their pins conflict with ours. All
of them store the bytes of our shards and decode and crop them by the same functions; only `files` has depth
as 16-bit PNG. Each mixes the ten datasets uniformly; batches are uint8 images and float16 depth.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from loading_data import read_rows
from loading_timing import report
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from datasets_prep.schema import decode_image
from pipelines.loading.crops import crop_and_flip
from pipelines.loading.rows import decode_row

CROP, BATCH = 384, 16
COLUMNS = ["sample_id", "image", "inverse_depth", "height", "width"]
Pixels = tuple[np.ndarray, np.ndarray]
_random = np.random.default_rng()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    arguments = parser.parse_args()
    write, loader = PEERS[arguments.name]
    folder = arguments.shards.parent / arguments.name
    if write and not (folder / "finished").exists():
        shutil.rmtree(folder, ignore_errors=True)
        write(arguments.shards, folder)
        (folder / "finished").touch()
    report(
        endless(loader, folder if write else arguments.shards, arguments.processes),
        BATCH,
        arguments.warmup,
        arguments.samples,
    )


def endless(loader: Callable[[Path, int], Any], folder: Path, processes: int) -> Iterator[Any]:
    batches = loader(folder, processes)
    while True:
        yield from batches


def cropped(image: np.ndarray, inverse_depth: np.ndarray) -> Pixels:
    out = np.empty((CROP, CROP, 3), np.uint8), np.empty((CROP, CROP), np.float16)
    crop_and_flip(image, inverse_depth, _random.random(3), True, *out)
    return out


def decoded(row: dict[str, Any]) -> Pixels:
    return cropped(*decode_row({"sample_id": "", "height": 384, "width": 512, **row}))


def by_dataset(shards: Path) -> dict[str, list[dict[str, Any]]]:
    rows = sorted(read_rows(shards), key=lambda row: str(row["dataset"]))
    return {name: list(group) for name, group in itertools.groupby(rows, lambda row: row["dataset"])}


# ---- torch DataLoader over the shards


class Shards(IterableDataset):
    """Each process reads all shards of all datasets, at each step the next row of a random dataset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[Pixels]:
        yield from map(decoded, self.rows(torch.initial_seed() % 2**32))

    def rows(self, seed: int) -> Iterator[dict[str, Any]]:
        """Rows that are not decoded."""
        rng = np.random.default_rng(seed)
        streams = [self._rows(dataset, rng) for dataset in sorted(self.folder.iterdir())]
        while True:
            yield next(streams[rng.integers(len(streams))])

    def _rows(self, dataset: Path, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        files = [pq.ParquetFile(path) for path in sorted(dataset.glob("*/*.parquet"))]
        groups = [(file, group) for file in files for group in range(file.num_row_groups)]
        while True:
            for place in rng.permutation(len(groups)):
                file, group = groups[place]
                yield from file.read_row_group(group, COLUMNS).to_pylist()


def shards_loader(folder: Path, processes: int) -> Any:
    return DataLoader(Shards(folder), BATCH, num_workers=processes, persistent_workers=True)


# ---- torch DataLoader over files


def write_files(shards: Path, folder: Path) -> None:
    for row in read_rows(shards):
        target = folder / row["sample_id"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".jpg").write_bytes(row["image"])
        _, inverse_depth = decode_row(row)
        levels = np.nan_to_num(inverse_depth.astype(np.float32)) * 65535
        _, png = cv2.imencode(".png", levels.astype(np.uint16))
        target.with_suffix(".png").write_bytes(png.tobytes())


class Files(Dataset):
    """JPEG and PNG pairs by index."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pixels:
        path = self.images[index]
        levels = cv2.imdecode(np.fromfile(path.with_suffix(".png"), np.uint8), cv2.IMREAD_UNCHANGED)
        assert levels is not None
        inverse_depth = levels.astype(np.float32)
        inverse_depth /= 65535
        return cropped(decode_image(path.read_bytes()), inverse_depth.astype(np.float16))


def files_loader(folder: Path, processes: int) -> Any:
    dataset = Files(folder)
    sampler = WeightedRandomSampler([1.0] * len(dataset), 1 << 20)
    return DataLoader(dataset, BATCH, sampler=sampler, num_workers=processes)


# ---- MosaicML Streaming


def write_mosaic(shards: Path, folder: Path) -> None:
    from streaming import MDSWriter

    for name, rows in by_dataset(shards).items():
        with MDSWriter(
            out=str(folder / name), columns={"image": "bytes", "inverse_depth": "bytes"}
        ) as writer:
            for row in rows:
                writer.write({key: row[key] for key in ("image", "inverse_depth")})


def mosaic_loader(folder: Path, processes: int) -> Any:
    from streaming import Stream, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Decoded(StreamingDataset):
        def __getitem__(self, at: Any) -> Pixels:
            return decoded(super().__getitem__(at))

    clean_stale_shared_memory()
    streams = [Stream(local=str(path), proportion=0.1) for path in sorted(folder.iterdir()) if path.is_dir()]
    dataset = Decoded(streams=streams, shuffle=True, batch_size=BATCH, epoch_size=1 << 17)
    return DataLoader(dataset, BATCH, num_workers=processes)


# ---- WebDataset


def write_webdataset(shards: Path, folder: Path) -> None:
    import webdataset

    folder.mkdir(parents=True)
    for name, rows in by_dataset(shards).items():
        for part in range(4):
            with webdataset.TarWriter(str(folder / f"{name}-{part}.tar")) as writer:
                for number, row in enumerate(rows[part::4]):
                    sample = {"__key__": f"{number:05}", "jpg": row["image"], "depth": row["inverse_depth"]}
                    writer.write(sample)


def webdataset_loader(folder: Path, processes: int) -> Any:
    import webdataset

    names = sorted({path.name.split("-")[0] for path in folder.glob("*.tar")})
    streams = [
        webdataset.WebDataset([str(path) for path in sorted(folder.glob(f"{name}-*.tar"))], resampled=True)
        .shuffle(32)
        .map(lambda sample: decoded({"image": sample["jpg"], "inverse_depth": sample["depth"]}))
        for name in names
    ]
    mixed = webdataset.DataPipeline(webdataset.RandomMix(streams), webdataset.batched(BATCH, stacked))
    return webdataset.WebLoader(mixed, batch_size=None, num_workers=processes)


def stacked(samples: list[Pixels]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True)]


# ---- Hugging Face datasets


def hugging_face_loader(folder: Path, processes: int) -> Any:
    from datasets import interleave_datasets, load_dataset

    streams = [
        load_dataset("parquet", data_files=sorted(map(str, dataset.glob("*/*.parquet"))), streaming=True)[
            "train"
        ]
        .select_columns(COLUMNS)
        .repeat(None)
        for dataset in sorted(folder.iterdir())
    ]
    # Without its shuffle buffer, which restricts loading to one process.
    mixed = interleave_datasets(streams, probabilities=[0.1] * 10, seed=0)
    return DataLoader(mixed, BATCH, num_workers=processes, collate_fn=decoded_together)


# ---- LitData


def _raw(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("image", "inverse_depth")}


def write_litdata(shards: Path, folder: Path) -> None:
    from litdata import optimize

    for name, rows in by_dataset(shards).items():
        optimize(_raw, rows, str(folder / name), num_workers=1, chunk_bytes="4MB", verbose=False)


def litdata_loader(folder: Path, processes: int) -> Any:
    from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset

    streams = [
        StreamingDataset(str(path), shuffle=True) for path in sorted(folder.iterdir()) if path.is_dir()
    ]
    mixed = CombinedStreamingDataset(streams, weights=[0.1] * 10, iterate_over_all=False, seed=0)
    return StreamingDataLoader(mixed, batch_size=BATCH, num_workers=processes, collate_fn=decoded_together)


def decoded_together(rows: list[dict[str, Any]]) -> list[torch.Tensor]:
    return stacked([decoded(row) for row in rows])


# ---- SPDL


def spdl_loader(folder: Path, processes: int) -> Any:
    from spdl.pipeline import PipelineBuilder

    pipeline = (
        PipelineBuilder()
        .add_source(Shards(folder).rows(0))
        .pipe(decoded, concurrency=processes)
        .aggregate(BATCH)
        .pipe(stacked)
        .add_sink(4)
        .build(num_threads=processes)
    )
    with pipeline.auto_stop():
        yield from pipeline


# ---- Grain


def write_grain(shards: Path, folder: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(parents=True)
    for name, rows in by_dataset(shards).items():
        writer = ArrayRecordWriter(str(folder / f"{name}.array_record"), "group_size:1")
        for row in rows:
            writer.write(len(row["image"]).to_bytes(4, "little") + row["image"] + row["inverse_depth"])
        writer.close()


def grain_loader(folder: Path, processes: int) -> Any:
    import grain

    datasets = [
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource(str(path))).seed(0).shuffle().repeat()
        for path in sorted(folder.glob("*.array_record"))
    ]
    mixed = grain.MapDataset.mix(datasets, [0.1] * len(datasets)).map(_decoded_record)
    # By itself each process decodes in 16 threads, which wait for each other.
    read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2 * BATCH)
    batches = mixed.to_iter_dataset(read).batch(BATCH, batch_fn=stacked)
    return batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=processes))


def _decoded_record(record: bytes) -> Pixels:
    end = 4 + int.from_bytes(record[:4], "little")
    return decoded({"image": record[4:end], "inverse_depth": record[end:]})


PEERS: dict[str, tuple[Callable[[Path, Path], None] | None, Callable[[Path, int], Any]]] = {
    "dataloader": (None, shards_loader),
    "files": (write_files, files_loader),
    "mosaicml": (write_mosaic, mosaic_loader),
    "webdataset": (write_webdataset, webdataset_loader),
    "huggingface": (None, hugging_face_loader),
    "litdata": (write_litdata, litdata_loader),
    "spdl": (None, spdl_loader),
    "grain": (write_grain, grain_loader),
}

if __name__ == "__main__":
    main()
