"""Samples of a raw dataset, found and not read: one of them, and millions of them packed.

A `Sample` as a Python object with its paths takes 700 bytes; the largest dataset has 1.5 million. `Samples`
keeps them as compressed Arrow columns, some thousands at a time, which takes a twentieth of that.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("files", pa.map_(pa.string(), pa.string())),
        pa.field("group", pa.string()),
        pa.field("split", pa.string()),
        pa.field("annotation", pa.string()),
    ]
)
"""The columns are the fields of `Sample`."""

_CHUNK = 8192  # samples that are packed together, and that exist as objects at once when iterating


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a raw dataset: found, not read.

    Attributes:
        sample_id: unique in its dataset, the same on every machine (made of relative paths).
        files: role (`image`, `depth`, …) → path relative to the dataset root.
        group: samples of one group share a random split: a scene, a trajectory, or the image itself.
        split: the official split (`train`, `val`, `test`), or None where there is none.
        annotation: the sample's line in an annotation file, where the ground truth has no file per sample.
    """

    sample_id: str
    files: dict[str, str]
    group: str
    split: str | None = None
    annotation: str = ""


class Samples(Iterable[Sample]):
    """Any number of `samples` in order, packed; more can be appended."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._packed: list[bytes] = []
        self._last: list[Sample] = []
        for sample in samples:
            self.append(sample)

    def append(self, sample: Sample) -> None:
        """Add `sample` at the end."""
        self._last.append(sample)
        if len(self._last) == _CHUNK:
            self._packed.append(pack(to_table(self._last)))
            self._last = []

    def __len__(self) -> int:
        return len(self._packed) * _CHUNK + len(self._last)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Samples) and self.table().equals(other.table())

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Sample]:
        for packed in self._packed:
            yield from from_table(unpack(packed))
        yield from list(self._last)

    def table(self) -> pa.Table:
        """All samples, unpacked: columns of `SAMPLE_SCHEMA` in one chunk."""
        last = to_table(self._last)
        # A column at a time, the largest first: unpacking is cheap, and two copies of all would be large.
        names = sorted(SAMPLE_SCHEMA.names, key=lambda name: name != "files")
        columns = {}
        for name in names:
            parts = [chunk for packed in self._packed for chunk in unpack(packed).column(name).chunks]
            columns[name] = pa.concat_arrays([*parts, *last.column(name).chunks])
        return pa.table([columns[name] for name in SAMPLE_SCHEMA.names], schema=SAMPLE_SCHEMA)


def to_table(samples: Sequence[Sample]) -> pa.Table:
    """The columns `SAMPLE_SCHEMA` of `samples`."""
    columns = []
    for field in SAMPLE_SCHEMA:
        values = [getattr(sample, field.name) for sample in samples]
        pairs = [list(value.items()) if isinstance(value, dict) else value for value in values]
        columns.append(pa.array(pairs, field.type))
    return pa.Table.from_arrays(columns, schema=SAMPLE_SCHEMA)


def from_table(table: pa.Table) -> list[Sample]:
    """The samples of a `table` that `to_table` made."""
    columns = (table.column(name).to_pylist() for name in SAMPLE_SCHEMA.names)
    return [Sample(name, dict(files), *others) for name, files, *others in zip(*columns, strict=True)]


def pack(table: pa.Table) -> bytes:
    """The `table` as a compressed Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(packed: bytes) -> pa.Table:
    """The table that `pack` made `packed` of."""
    with pa.ipc.open_stream(pa.py_buffer(packed)) as reader:
        return reader.read_all()
