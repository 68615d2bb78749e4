import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep.storage.folder import Folder
from datasets_prep.storage.sealed_parquet import FOOTER_SEAL, DamagedShard, reading_shard, seal_footer

TABLE = pa.table({"name": ["a", "b"], "value": [0.5, None], "long": ["x" * 40_000, "y"]})


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return Folder(tmp_path if request.param == "local" else "memory://sealed-parquet")


def write(folder: Folder, footer_bytes: int = 0) -> bytes:
    with folder.writing("x.parquet") as path:
        with pq.ParquetWriter(path, TABLE.schema, compression="none", write_page_checksum=True) as writer:
            writer.write_table(TABLE)
            writer.add_key_value_metadata({b"more": b"m" * footer_bytes, **FOOTER_SEAL})
        seal_footer(path)
        return path.read_bytes()


@pytest.mark.parametrize("footer_bytes", [0, 100_000])
def test_a_sealed_file_is_read_and_is_still_parquet(folder, footer_bytes, tmp_path):
    content = write(folder, footer_bytes)
    with reading_shard(folder, "x.parquet") as file:
        assert file.read().equals(TABLE)
    (tmp_path / "copy").write_bytes(content)
    assert pq.read_table(tmp_path / "copy").equals(TABLE)
    assert write(folder, footer_bytes) == content


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    folder, generator = Folder(tmp_path), random.Random(0)
    content = write(folder)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    refused: list[str] = []
    for place in [*range(footer, len(content)), *generator.choices(range(footer), k=300)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.randrange(8)
        (tmp_path / "x.parquet").write_bytes(flipped)
        try:
            with reading_shard(folder, "x.parquet") as file:
                assert file.read().equals(TABLE)
                assert place < footer
        except DamagedShard as error:
            refused.append(str(error))
    assert all(line.startswith(f"{tmp_path}/x.parquet is damaged: ") and "\n" not in line for line in refused)
    assert len(refused) > len(content) - footer + 250


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1", b"x" * 100])
def test_another_file_is_refused(content, tmp_path):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DamagedShard, match="has no footer"), reading_shard(Folder(tmp_path), "x.parquet"):
        pass


def test_a_file_without_the_digest_is_refused(tmp_path):
    pq.write_table(TABLE, Path(tmp_path / "x.parquet"))
    with pytest.raises(DamagedShard, match="no digest"), reading_shard(Folder(tmp_path), "x.parquet"):
        pass
