"""ADE20K and Pascal Context: numbering of classes, forms of masks, splits, and a real mask."""

import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import pictures as formats
from datasets_prep.formats.matlab import encode_matlab_arrays
from datasets_prep.ingest.label_rows import CLASSES
from datasets_prep.plan.listing import list_samples
from datasets_prep.sources import SOURCES
from datasets_prep.sources.ade20k import ADE20K
from datasets_prep.sources.base import IGNORED_LABEL
from datasets_prep.sources.pascal_context import PascalContext59, PascalContext60
from datasets_prep.storage.folder import Folder
from datasets_prep.writers import ade20k, pascal_context
from datasets_prep.writers.base import label_map
from dpt.class_names import CLASS_SETS, class_names
from tests.support.paths import SAMPLES
from tests.support.raw_files import put, read_first

SCENES = 4
REAL = SAMPLES / "ade20k"
PHOTO = formats.encode_jpeg(np.zeros((2, 3, 3), np.uint8))


def good(source, tree):
    return [s for s in list_samples(source, tree.root).samples if s.sample_id not in tree.traps]


def context(root, name, data, photo=True):
    photos = {f"JPEGImages/{Path(name).stem}.jpg": PHOTO} if photo else {}
    return put(root, {name: data, **photos})


# ---- ADE20K
def test_ade20k_counts_from_zero_and_ignores_other(written):
    tree = written("ade20k", SCENES)
    samples = good(ADE20K(), tree)
    assert [s.split for s in samples] == ["train", "train", "train", "val"]
    for sample in samples:
        scene = tree.scenes[int(sample.sample_id[-8:]) - 1][0]
        stored = label_map(scene, ade20k.CLASSES).astype(int)
        expected = np.where(stored == 0, IGNORED_LABEL, stored - 1)
        np.testing.assert_array_equal(ADE20K().read(tree.root, sample).labels, expected)


def test_ade20k_every_label(tmp_path):
    stored = np.array([[0, 1, 2], [149, 150, 0]], np.uint8)
    files = {
        "images/training/ADE_train_00000001.jpg": PHOTO,
        "annotations/training/ADE_train_00000001.png": formats.encode_png(stored),
    }
    labels = read_first(ADE20K(), put(tmp_path, files)).labels
    assert labels.tolist() == [[255, 0, 1], [148, 149, 255]]


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples beside the repository")
def test_real_ade20k_photo():
    root = Folder(REAL)
    [sample] = ADE20K().list(root).samples
    assert (sample.sample_id, sample.split) == ("ADE_val_00000001", "val")
    raw = ADE20K().read(root, sample)
    assert formats.image_size(raw.image) == raw.labels.shape
    classes = set(np.unique(raw.labels).tolist()) - {IGNORED_LABEL}
    assert classes <= set(range(150))
    assert len(classes) > 3


# ---- Pascal Context
@pytest.mark.parametrize(
    ("source", "background", "offset"), [(PascalContext60(), 0, 0), (PascalContext59(), IGNORED_LABEL, 1)]
)
def test_pascal_context_in_both_forms(written, source, background, offset):
    tree = written(source.name, SCENES)
    samples = good(source, tree)
    assert [s.split for s in samples] == ["train", "train", "train", "val"]
    assert {Path(s.files["label"]).suffix for s in samples} == {".png", ".mat"}
    for sample in samples:
        stored = label_map(tree.scenes[int(sample.sample_id[-6:])][0], pascal_context.CLASSES).astype(int)
        if sample.files["label"].endswith(".mat"):
            stored[:2, :2] = 0  # a class of the whole set that is not frequent
        expected = np.where(stored == 0, background, stored - offset)
        np.testing.assert_array_equal(source.read(tree.root, sample).labels, expected)


def test_pascal_context_numbers_the_frequent_classes_in_order(tmp_path):
    # Aeroplane, bag, bed and wood are the first three and the last of the 59 in the order of names.
    stored = np.array([[2, 9, 18], [458, 1, 0]], np.uint16)
    root = context(tmp_path, "trainval/2008_000002.mat", encode_matlab_arrays({"LabelMap": stored}))
    sample = next(iter(PascalContext60().list(root).samples))
    assert PascalContext60().read(root, sample).labels.tolist() == [[1, 2, 3], [59, 0, 0]]
    assert PascalContext59().read(root, sample).labels.tolist() == [[0, 1, 2], [58, 255, 255]]


def test_pascal_context_prefers_the_converted_mask(tmp_path):
    context(tmp_path, "trainval/a.mat", b"")
    root = context(tmp_path, "SegmentationClassContext/a.png", formats.encode_png(np.ones((2, 3), np.uint8)))
    assert next(iter(PascalContext60().list(root).samples)).files["label"] == "SegmentationClassContext/a.png"


def test_photos_without_a_mask_are_no_defect(tmp_path):
    context(tmp_path, "SegmentationClassContext/a.png", formats.encode_png(np.ones((2, 3), np.uint8)))
    listing = PascalContext60().list(put(tmp_path, {"JPEGImages/b.jpg": PHOTO}))
    assert len(listing.samples) == 1
    assert not listing.rejected


def test_the_form_that_needs_drawing_is_refused_by_name(tmp_path):
    put(tmp_path, {"trainval_merged.json": b"{}", "JPEGImages/b.jpg": PHOTO})
    with pytest.raises(WrongLayout, match=r"trainval_merged.json cannot be drawn .*SegmentationClassContext"):
        PascalContext60().list(Folder(tmp_path))


def test_lists_of_pascal_context(tmp_path):
    for name in "ab":
        context(
            tmp_path, f"SegmentationClassContext/{name}.png", formats.encode_png(np.ones((2, 3), np.uint8))
        )
    lists = {"SegmentationContext/train": b"a\n", "SegmentationContext/val": b"b\n", "Main/train": b"b\n"}
    root = put(tmp_path, {f"ImageSets/{name}.txt": data for name, data in lists.items()})
    found = list_samples(PascalContext60(), root)
    assert {s.sample_id: s.split for s in found.samples} == {"a": "train", "b": "val"}


def compressed_zeros(shape):
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"LabelMap": np.zeros(shape, np.uint8)}, do_compression=True)
    return stream.getvalue()


@pytest.mark.parametrize(("data", "message"), [
    (b"", "label MATLAB file"),
    (b"MATLAB 5.0 MAT-file" * 20, "label MATLAB file"),
    (encode_matlab_arrays({"Other": np.ones((2, 3), np.uint16)}), r"no matrix LabelMap.*'Other'"),
    (encode_matlab_arrays({"LabelMap": np.full((2, 3), 460, np.uint16)}), "up to 460, expected 0 to 459"),
    (encode_matlab_arrays({"LabelMap": np.ones((2, 3))}), "holds float64"),
    (encode_matlab_arrays({"LabelMap": np.array([["a"]], object)}), "no real numbers"),
    (compressed_zeros((10_000, 10_000)), "declares 10000x10000 values"),
])  # fmt: skip
def test_masks_that_are_none_are_refused(tmp_path, data, message):
    root = context(tmp_path, "trainval/a.mat", data)
    with pytest.raises(BadSample, match=message):
        read_first(PascalContext60(), root)


def test_every_set_has_as_many_classes_as_names():
    labelled = {name for name, source in SOURCES.items() if source.target_kind == "labels"}
    assert labelled == set(CLASSES) == set(CLASS_SETS)
    for name, classes in CLASSES.items():
        assert len(class_names(name)) == classes
