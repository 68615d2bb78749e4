"""What holds for every source: its contract, defects, wrong folders, and folders that are not local."""

import os
import shutil
from dataclasses import fields
from pathlib import Path

import fsspec
import numpy as np
import pytest

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import pictures as formats
from datasets_prep.plan.listing import list_samples
from datasets_prep.sources import SOURCES
from datasets_prep.sources.base import IGNORED_LABEL, RawLabels, RawPointPair, RawSample
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import WRITERS
from tests.support.raw_files import good_samples

SCENES = 2


def test_every_source_can_be_generated():
    assert set(SOURCES) == set(WRITERS)


def is_packed(sample):
    """Whether image and ground truth lie in one file, from which the image is made."""
    return sample.files["image"] == sample.files.get("depth")


def shape_of(raw):
    """Height and width of the ground truth, where it is a map."""
    return (raw.labels if isinstance(raw, RawLabels) else raw.target).shape


def check_depth(raw, source):
    assert (raw.target.dtype, raw.target.shape, raw.valid.dtype) == (np.float32, raw.valid.shape, bool)
    assert raw.valid.any()
    assert np.isfinite(raw.target[raw.valid]).all()
    if raw.quantity == "depth":
        assert (raw.target[raw.valid] > 0).all()
    if raw.sky is not None:
        assert raw.sky.shape == raw.valid.shape
        assert not (raw.sky & raw.valid).any()
    if not source.sizes_may_differ:
        assert formats.image_size(raw.image) == raw.target.shape


def check_labels(raw, source):
    assert raw.labels.dtype == np.uint8
    assert formats.image_size(raw.image) == raw.labels.shape
    assert len(np.unique(raw.labels)) > 1


def check_point_pair(raw, source):
    height, width = formats.image_size(raw.image)
    for y, x in ((raw.y_a, raw.x_a), (raw.y_b, raw.x_b)):
        assert 0 <= y < height
        assert 0 <= x < width


CHECKS = {RawSample: check_depth, RawLabels: check_labels, RawPointPair: check_point_pair}
KINDS = {RawLabels: {"labels"}, RawPointPair: {"ordinal"}, RawSample: {"metric", "up-to-scale", "affine"}}


@pytest.mark.parametrize("name", SOURCES)
def test_files_that_nobody_asks_for_are_counted_or_named(name, written, tmp_path):
    root = Path(written(name, SCENES).root.path)
    shutil.copytree(root, tmp_path / "raw", copy_function=os.link)
    (tmp_path / "raw" / "zzz.notes").write_text("of a user")

    def said_of(folder):
        source = SOURCES[name].opened(Folder(folder), {})
        listing = list_samples(source, Folder(folder))
        return len(listing.samples), len(listing.unused) + listing.unread[0]

    samples, before = said_of(root)
    assert said_of(tmp_path / "raw") == (samples, before + 1)


@pytest.mark.parametrize("name", SOURCES)
def test_good_samples_keep_the_contract(name, written):
    tree = written(name, SCENES)
    source = SOURCES[name].opened(tree.root, {})
    samples = good_samples(source, tree)
    assert samples
    for sample in samples:
        raw = source.read(tree.root, sample)
        CHECKS[type(raw)](raw, source)
        assert source.target_kind in KINDS[type(raw)]
        if is_packed(sample):
            assert formats.decode_rgb(raw.image).shape[:2] == formats.image_size(raw.image)
        else:
            assert raw.image == tree.root.read_bytes(sample.files["image"])


@pytest.mark.parametrize("name", SOURCES)
def test_options_that_a_source_does_not_have_are_refused(name, written):
    with pytest.raises(WrongLayout, match=r"^options: .*colour"):
        SOURCES[name].opened(written(name, SCENES).root, {"colour": 1})


@pytest.mark.parametrize("name", SOURCES)
def test_listing_is_reproducible_and_ids_are_unique(name, written):
    tree, source = written(name, SCENES), SOURCES[name]
    first, again = source.list(tree.root), source.list(tree.root)
    assert list(first.samples) == list(again.samples)
    assert first.rejected == again.rejected
    assert len({sample.sample_id for sample in first.samples}) == len(first.samples)
    assert all(tree.root.exists(path) for sample in first.samples for path in sample.files.values())


@pytest.mark.parametrize("name", SOURCES)
def test_each_defect_has_its_consequence(name, written):
    tree, source = written(name, SCENES), SOURCES[name]
    listing = source.list(tree.root)
    samples = {sample.sample_id: sample for sample in listing.samples}
    assert EXPECTED.get(name, OF_DEPTH) <= set(tree.traps.values())
    left_out = [sample_id for sample_id, defect in tree.traps.items() if defect in LEFT_OUT]
    assert len(listing.rejected) == len(left_out)
    for sample_id, defect in tree.traps.items():
        if defect in LEFT_OUT:
            assert sample_id not in samples
            name_of_it = sample_id.rsplit("/", 1)[-1].lstrip("0")
            assert any(name_of_it in f"{r.path} {r.reason}" for r in listing.rejected)
            continue
        CONSEQUENCES[defect](source, tree.root, samples[sample_id])


def refuses(pattern):
    def check(source, root, sample):
        with pytest.raises(BadSample, match=pattern) as first:
            source.read(root, sample)
        with pytest.raises(BadSample) as again:
            source.read(root, sample)
        # Reasons are part of a shard's bytes, which are the same in every process.
        assert str(first.value) == str(again.value)
        assert "0x" not in str(first.value)

    return check


def is_empty(source, root, sample):
    try:
        assert not source.read(root, sample).valid.any()
    except BadSample as error:
        assert "empty" in str(error)  # noqa: PT017


def has_no_labels(source, root, sample):
    assert (source.read(root, sample).labels == IGNORED_LABEL).all()


def has_a_bad_image(source, root, sample):
    with pytest.raises(BadSample, match=r"^image"):
        formats.decode_rgb(source.read(root, sample).image)


def differs_in_size(source, root, sample):
    """A source may say so itself, or leave it to those who need equal sizes."""
    try:
        raw = source.read(root, sample)
    except BadSample as error:
        assert "size mismatch" in str(error)  # noqa: PT017
    else:
        assert formats.image_size(raw.image) != shape_of(raw)


def lies_outside(source, root, sample):
    raw = source.read(root, sample)
    height, _ = formats.image_size(raw.image)
    assert max(raw.y_a, raw.y_b) >= height


def is_read(source, root, sample):
    raw = source.read(root, sample)
    size = formats.image_size(raw.image)
    assert formats.decode_rgb(raw.image).shape == (*size, 3)
    if not isinstance(raw, RawPointPair):
        assert shape_of(raw) == size


CONSEQUENCES = {
    "truncated depth": refuses(r"^depth"),
    "truncated label": refuses(r"^label"),
    "unknown label": refuses(r"^label \d+ is none of"),
    "empty depth": is_empty,
    "empty label": has_no_labels,
    "ordinal depth": refuses(r"^depth map is ordinal"),
    "ordinal depth without signs": refuses(r"^depth map is ordinal"),
    "truncated image": has_a_bad_image,
    "mismatched size": differs_in_size,
    "point outside": lies_outside,
    "grey image": is_read,
    "RGBA image": is_read,
}
LEFT_OUT = {"missing partner", "equal points"}
OF_LABELS = {"missing partner", "truncated image", "truncated label", "unknown label"}
OF_DEPTH = {"missing partner", "truncated image", "truncated depth", "empty depth"}
EXPECTED = {
    "nyuv2_labelled": {"missing partner", "empty depth"},
    "diw": {"missing partner", "truncated image", "equal points", "point outside", "mismatched size"},
    "ade20k": {*OF_LABELS, "empty label"},
    **dict.fromkeys(("pascal_context_59", "pascal_context_60"), OF_LABELS),
}


@pytest.mark.parametrize("name", SOURCES)
def test_other_datasets_folders_do_not_match(name, written):
    for other in SOURCES:
        if WRITERS[other] != WRITERS[name]:
            listing = SOURCES[name].list(written(other, SCENES).root)
            assert not listing.samples
            assert not listing.rejected


@pytest.mark.parametrize("name", SOURCES)
def test_empty_folder_gives_an_empty_listing(name, tmp_path):
    assert not SOURCES[name].list(Folder(tmp_path)).samples


@pytest.mark.parametrize("name", SOURCES)
def test_missing_file_is_not_blamed_on_the_sample(name, written, tmp_path):
    tree, source = written(name, SCENES), SOURCES[name]
    sample = next(iter(source.list(tree.root).samples))
    opened = source.opened(tree.root, {})
    with pytest.raises(OSError, match="|".join(p.rsplit("/", 1)[-1] for p in sample.files.values())):
        opened.read(Folder(tmp_path), sample)


@pytest.mark.parametrize("name", SOURCES)
def test_remote_folders_read_the_same(name, written):
    tree, source = written(name, SCENES), SOURCES[name]
    remote = fsspec.filesystem("memory")
    for path in tree.root.files():
        remote.pipe(f"/raw/{name}/{path}", tree.root.read_bytes(path))
    there = Folder(f"memory://raw/{name}")
    listing = source.list(there)
    assert list(listing.samples) == list(source.list(tree.root).samples)
    sample = next(s for s in listing.samples if s.sample_id not in tree.traps)
    local, far = source.read(tree.root, sample), source.read(there, sample)
    for field in fields(local):
        np.testing.assert_array_equal(getattr(local, field.name), getattr(far, field.name))


@pytest.mark.parametrize("name", SOURCES)
def test_image_that_is_no_picture_is_refused(name, written, tmp_path):
    """For instance the HTML page of a download that needed a login."""
    tree, source = written(name, SCENES), SOURCES[name]
    sample = next(s for s in source.list(tree.root).samples if s.sample_id not in tree.traps)
    if is_packed(sample):
        copy = tmp_path / sample.files["image"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"<html>")
        with pytest.raises(BadSample, match="HDF5 damaged"):
            source.read(Folder(tmp_path), sample)
        return

    class Garbled(Folder):
        def read_bytes(self, relative: str, most: int | None = None) -> bytes:
            return b"<html>" if relative == sample.files["image"] else super().read_bytes(relative, most)

    with pytest.raises(BadSample, match=r"^image is neither JPEG nor PNG"):
        source.read(Garbled(tree.root.uri), sample)
