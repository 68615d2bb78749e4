"""The manifest of a prepared dataset: its content, settings and digests, written last.

A prepared dataset is a folder:

    tartanair/
        latest.json                     {"version": "3f9c…"}: the version that readers take
        3f9c…/                          one version: a pure function of raw listing, settings and seed
            train-00000.parquet …       shards
            _quarantine.parquet         samples that were left out, and why
            .huggingface.yaml           which columns are pictures, for Hugging Face's `datasets`
            _manifest.json              written last; without it the version is unfinished

Readers trust only what a manifest names. Others open a version's folder as a whole: they pass over files
whose names begin with `_` or `.`.
"""

import hashlib
import io
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from datasets_prep.errors import UserError
from datasets_prep.schema import SCHEMA_VERSION
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.sealed import DamagedFile, seal_of, sealed, unsealed

MANIFEST_NAME = "_manifest.json"
LATEST_NAME = "latest.json"
QUARANTINE_NAME = "_quarantine.parquet"


class NotADataset(UserError):
    """A folder without a finished, prepared dataset; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard file: its `name`, `split`, number of `rows` and of those in each of its `row_groups`.

    `bytes` and `sha256` (hexadecimal) are of the whole file.
    """

    name: Annotated[str, Field(pattern=r"^[^/\n]+\.parquet$")]
    split: str
    rows: int
    row_groups: list[int]
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of one version of a prepared dataset.

    Attributes:
        dataset: name of the dataset.
        target_kind: kind of ground truth, see `sources.base.TargetKind`.
        version: digest of the plan: raw listing, settings, seed and schema.
        settings: ingest settings.
        samples: split → number of rows.
        quarantined: number of samples that were left out (listed in `_quarantine.parquet`).
        quarantine_sha256: digest of that file.
        statistics: means over all samples, for display.
        notes: what was done to samples that are used, with their number; see `errors.Note`.
        shards: all shards with rows.
        schema_version: version of `schema.SCHEMA`.
    """

    dataset: str
    target_kind: str
    version: str
    settings: dict[str, Any]
    samples: dict[str, int]
    quarantined: int
    quarantine_sha256: str
    statistics: dict[str, float]
    shards: list[Shard]
    notes: dict[str, int] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's content: datasets of equal digests hold the same bytes."""
        return seal_of(asdict(self))

    def split(self, name: str) -> list[Shard]:
        """The shards of the split `name`, in order. Raises NotADataset if there is no such split."""
        shards = [shard for shard in self.shards if shard.split == name]
        if not shards:
            raise NotADataset(f"{self.dataset} has no split {name!r}; it has {sorted(self.samples)}")
        return shards

    def to_json(self) -> str:
        """The content of `_manifest.json`."""
        return sealed(asdict(self))

    @staticmethod
    def from_json(text: str | bytes, where: str) -> "Manifest":
        """Parse the manifest `text` of the file `where`.

        Raises NotADataset if it is not a manifest, damaged, or of another schema version.
        """
        try:
            content = unsealed(text, where)
            version = content["schema_version"]
            if version != SCHEMA_VERSION:
                wanted = f"this program reads {SCHEMA_VERSION}"
                raise NotADataset(f"{where} has schema version {version}, {wanted}")
            return _MANIFEST.validate_python(content)
        except DamagedFile as error:
            raise NotADataset(f"{error}; remove it, and `dpt prepare` writes it again") from error
        except (KeyError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise NotADataset(f"{where} is not a dataset manifest: {reason:.200}") from error


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True)
class PreparedDataset:
    """A `manifest` and the `folder` of its shards."""

    folder: Folder
    manifest: Manifest

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.manifest.dataset

    def read_quarantine(self) -> list[dict[str, str]]:
        """The samples that were left out: `sample_id` ("" if unknown), `source_path` and `reason` of each.

        Raises FileNotFoundError if the table is missing; DamagedFile if it is damaged.
        """
        content = self.folder.read_bytes(QUARANTINE_NAME)
        if hashlib.sha256(content).hexdigest() != self.manifest.quarantine_sha256:
            raise DamagedFile(f"{self.folder.uri}/{QUARANTINE_NAME} is damaged: it differs from its digest")
        entries: list[dict[str, str]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return entries


def open_dataset(uri: str) -> PreparedDataset:
    """Open the prepared dataset at `uri`, a path or URI: its folder (the latest version) or a version's.

    Raises NotADataset if there is none, or it is unfinished.
    """
    folder = Folder(uri)
    if folder.exists(LATEST_NAME):
        folder = folder / latest_version(folder)
    if not folder.exists(MANIFEST_NAME):
        raise NotADataset(
            f"no prepared dataset at {uri}: neither {LATEST_NAME} nor {MANIFEST_NAME} there "
            "(an unfinished one is finished by running `dpt prepare` again)"
        )
    text, where = folder.read_bytes(MANIFEST_NAME), f"{folder.uri}/{MANIFEST_NAME}"
    return PreparedDataset(folder, Manifest.from_json(text, where))


def latest_version(folder: Folder) -> str:
    """Name of the folder of the latest finished version, of those in the `folder` of a dataset.

    Raises NotADataset if `latest.json` is damaged.
    """
    where = f"{folder.uri}/{LATEST_NAME}"
    try:
        version = unsealed(folder.read_bytes(LATEST_NAME), where).get("version")
        if not isinstance(version, str):
            raise DamagedFile(f"{where} names no version")
        return version
    except DamagedFile as error:
        raise NotADataset(f"{error}; run `dpt prepare` again, or name a version's folder") from error


def open_datasets(uris: list[str]) -> list[PreparedDataset]:
    """Open the prepared datasets at `uris`, sorted by name; each may also be a folder of several.

    Raises NotADataset if a URI holds none, or one dataset is given twice.
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
