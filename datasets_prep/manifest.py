"""The manifest closes a prepared dataset: what is in it, made how, with which digests.

A prepared dataset is a folder:

    tartanair/
        latest.json                     {"version": "3f9c…"}: the version that readers take
        3f9c…/                          one version: a pure function of raw listing, settings and seed
            train-00000.parquet …       shards
            quarantine.parquet          what was left out, and why
            manifest.json               written last; without it the version is unfinished

Readers trust only what a manifest names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from datasets_prep.errors import UserError
from datasets_prep.schema import SCHEMA_VERSION
from datasets_prep.storage.folder import Folder

MANIFEST_NAME = "manifest.json"
LATEST_NAME = "latest.json"
QUARANTINE_NAME = "quarantine.parquet"


class NotADataset(UserError):
    """A folder that holds no finished, prepared dataset; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard file. `sha256` is of the whole file; `row_groups` holds the rows of each row group."""

    name: str
    split: str
    rows: int
    row_groups: list[int]
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one version of a prepared dataset holds.

    Attributes:
        dataset: the source's name.
        target_kind: metric, up-to-scale or affine.
        version: digest of the plan: raw listing, settings, seed and schema.
        settings: the ingest settings that produced it.
        samples: split → number of rows.
        quarantined: number of samples left out (their table is `quarantine.parquet`).
        statistics: means over all samples, for people.
        shards: every shard, empty ones left out.
    """

    dataset: str
    target_kind: str
    version: str
    settings: dict[str, Any]
    samples: dict[str, int]
    quarantined: int
    statistics: dict[str, float]
    shards: list[Shard]
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's content: two datasets with one digest hold the same bytes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def split(self, name: str) -> list[Shard]:
        """The shards of one split, in order.

        Raises:
            NotADataset: if there is no such split.
        """
        shards = [shard for shard in self.shards if shard.split == name]
        if not shards:
            raise NotADataset(f"{self.dataset} has no split {name!r}; it has {sorted(self.samples)}")
        return shards

    def to_json(self) -> str:
        """The manifest as the text that `manifest.json` holds."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str, where: str) -> Manifest:
        """Parse a manifest.

        Raises:
            NotADataset: if it is none, or of another schema version.
        """
        try:
            content = json.loads(text)
            version = content["schema_version"]
            if version != SCHEMA_VERSION:
                raise NotADataset(
                    f"{where} has schema version {version}, this program reads {SCHEMA_VERSION}"
                )
            shards = [Shard(**shard) for shard in content.pop("shards")]
            return Manifest(shards=shards, **content)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise NotADataset(f"{where} is no dataset manifest: {error!r}") from error


@dataclass(frozen=True, slots=True)
class PreparedDataset:
    """A manifest and the folder that its shards lie in."""

    folder: Folder
    manifest: Manifest

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.manifest.dataset


def open_dataset(uri: str) -> PreparedDataset:
    """Open a prepared dataset: its folder (the latest version is taken) or one version's own folder.

    Raises:
        NotADataset: if there is none, or it was never finished.
    """
    folder = Folder(uri)
    if folder.exists(LATEST_NAME):
        version = json.loads(folder.read_text(LATEST_NAME))["version"]
        folder = folder / version
    if not folder.exists(MANIFEST_NAME):
        raise NotADataset(
            f"no prepared dataset at {uri}: neither {LATEST_NAME} nor {MANIFEST_NAME} there "
            "(an unfinished one is finished by running `dpt prepare` again)"
        )
    return PreparedDataset(
        folder, Manifest.from_json(folder.read_text(MANIFEST_NAME), f"{folder.uri}/{MANIFEST_NAME}")
    )


def open_datasets(uris: list[str]) -> list[PreparedDataset]:
    """Open prepared datasets, sorted by name; a URI may also be a folder full of them.

    Raises:
        NotADataset: if a URI holds none, or one dataset is named twice.
    """
    found: dict[str, PreparedDataset] = {}
    for uri in uris:
        for dataset in _open_any(uri):
            if dataset.name in found:
                both = f"{found[dataset.name].folder.uri}, {dataset.folder.uri}"
                raise NotADataset(f"dataset {dataset.name} is given twice: {both}")
            found[dataset.name] = dataset
    return [found[name] for name in sorted(found)]


def _open_any(uri: str) -> list[PreparedDataset]:
    folder = Folder(uri)
    if folder.exists(LATEST_NAME) or folder.exists(MANIFEST_NAME):
        return [open_dataset(uri)]
    inside = [name for name in folder.children() if folder.exists(f"{name}/{LATEST_NAME}")]
    if not inside:
        raise NotADataset(f"no prepared dataset at {uri}, nor in the folders directly inside it")
    return [open_dataset((folder / name).uri) for name in inside]
