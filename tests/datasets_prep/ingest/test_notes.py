"""What was done to samples that are used is counted in the manifest, and said by `dpt prepare`."""

import warnings

import cv2
import numpy as np
import pytest

from datasets_prep.errors import Note
from datasets_prep.formats.pictures import decode_rgb, encode_png
from datasets_prep.ingest.run import collecting_notes
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.schema import decode_image
from datasets_prep.settings import IngestSettings
from pipelines.cli.app import _format_warning
from pipelines.loading.shard_reader import ShardReader
from tests.support.commands import said
from tests.support.raw_files import put
from tests.support.shards import prepare

ROWS, COLUMNS = np.mgrid[0:64, 0:96]
PHOTO = cv2.GaussianBlur(
    np.dstack([COLUMNS * 42, ROWS * 63, 4095 - COLUMNS * 40]).astype(np.uint16), (0, 0), 2
)
"""12 bits."""
NOTE = "photo of 12 bits in samples of 16: stretched, its value 4095 is white"


def test_photos_of_12_bits_are_stretched_counted_and_said(tmp_path):
    depth = encode_png((1000 + ROWS * 20).astype(np.uint16))
    ordinary = encode_png((PHOTO >> 4).astype(np.uint8))
    files = {"dataset.yaml": b"name: mine\nquantity: depth\nmetric: true\nscale: 0.001\n"}
    for number, photo in enumerate((encode_png(PHOTO), encode_png(PHOTO), encode_png(PHOTO[:9]), ordinary)):
        files |= {f"images/{number}.png": photo, f"depth/{number}.png": depth}
    raw, out = put(tmp_path / "raw", files), tmp_path / "out"
    # The third photo is of another size than its depth: it's left out, and not counted.
    settings = IngestSettings(resize="none", validation_share=0)
    prepared = prepare(plan_ingest("folder", raw.uri, settings), str(out))
    assert (prepared.manifest.notes, prepared.manifest.quarantined) == ({NOTE: 2}, 1)
    reader = ShardReader([prepared], "train", ("sample_id", "image"))
    rows = [row for group in range(len(reader.row_groups[0])) for row in reader.rows(0, group)]
    assert len(rows) == 3
    for row in rows:
        difference = decode_image(row["image"]).astype(float) - PHOTO * (255 / 4095)
        assert np.abs(difference).mean() < 3
    arguments = ("--raw", raw.uri, "--out", out, "resize=none", "validation_share=0")
    assert f"\n2 samples: {NOTE}\n" in said("prepare", "folder", *arguments)


def test_decoding_says_so_once_per_place_and_nothing_of_full_range():
    with pytest.warns(Note, match=NOTE):
        image = decode_rgb(encode_png(PHOTO))
    np.testing.assert_array_equal(image, np.rint(PHOTO * (255 / 4095)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_rgb(encode_png(PHOTO * 16 + 15))


def test_other_warnings_are_not_swallowed():
    with warnings.catch_warnings(record=True) as shown, collecting_notes() as notes:
        warnings.warn(Note("one"), stacklevel=1)
        warnings.warn("of another kind", RuntimeWarning, stacklevel=1)
        warnings.warn(Note("one"), stacklevel=1)
    assert notes == ["one", "one"]
    assert [str(warning.message) for warning in shown] == ["of another kind"]


def test_the_command_line_shows_the_message_of_a_note_alone():
    assert _format_warning(Note("one"), Note, "file.py", 3) == "one\n"
    assert _format_warning(UserWarning("two"), UserWarning, "file.py", 3).startswith(
        "file.py:3: UserWarning: two"
    )
