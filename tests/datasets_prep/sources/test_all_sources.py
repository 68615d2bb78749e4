"""What holds for every source: its contract, defects, wrong folders, and folders that are not local."""

from __future__ import annotations

import fsspec
import numpy as np
import pytest

from datasets_prep import formats
from datasets_prep.sources import SOURCES
from datasets_prep.sources.source import BadSample
from datasets_prep.storage import Folder
from datasets_prep.synthetic import LAYOUTS

SCENES = 2


def test_every_source_can_be_generated():
    assert set(SOURCES) == set(LAYOUTS)


@pytest.mark.parametrize("name", SOURCES)
def test_good_samples_keep_the_contract(name, written):
    tree, source = written(name, SCENES), SOURCES[name]
    samples = [s for s in source.list(tree.root).samples if s.sample_id not in tree.traps]
    assert samples
    for sample in samples:
        raw = source.read(tree.root, sample)
        assert raw.image == tree.root.read_bytes(sample.files["image"])
        assert raw.target.dtype == np.float32
        assert raw.target.shape == raw.valid.shape
        assert raw.valid.dtype == bool
        assert raw.valid.any()
        assert np.isfinite(raw.target[raw.valid]).all()
        if raw.quantity == "depth":
            assert (raw.target[raw.valid] > 0).all()
        if raw.sky is not None:
            assert raw.sky.shape == raw.valid.shape
            assert not (raw.sky & raw.valid).any()
        if not source.sizes_may_differ:
            assert formats.image_size(raw.image) == raw.target.shape


@pytest.mark.parametrize("name", SOURCES)
def test_listing_is_reproducible_and_ids_are_unique(name, written):
    tree, source = written(name, SCENES), SOURCES[name]
    first, again = source.list(tree.root), source.list(tree.root)
    assert first == again
    assert len({sample.sample_id for sample in first.samples}) == len(first.samples)
    assert all(tree.root.exists(path) for sample in first.samples for path in sample.files.values())


@pytest.mark.parametrize("name", SOURCES)
def test_each_defect_has_its_consequence(name, written):
    tree, source = written(name, SCENES), SOURCES[name]
    listing = source.list(tree.root)
    samples = {sample.sample_id: sample for sample in listing.samples}
    assert {"missing partner", "truncated image", "truncated depth", "empty depth"} <= set(
        tree.traps.values()
    )
    for sample_id, defect in tree.traps.items():
        if defect == "missing partner":
            assert sample_id not in samples
            [rejection] = listing.rejected
            assert sample_id.rsplit("/", 1)[-1] in rejection.path
            continue
        sample = samples[sample_id]
        if defect == "truncated depth":
            with pytest.raises(BadSample, match=r"^depth"):
                source.read(tree.root, sample)
        elif defect == "empty depth":
            try:
                assert not source.read(tree.root, sample).valid.any()
            except BadSample as error:
                assert "empty" in str(error)  # noqa: PT017
        elif defect.startswith("ordinal"):
            with pytest.raises(BadSample, match=r"^depth map is ordinal"):
                source.read(tree.root, sample)
        elif defect == "truncated image":
            with pytest.raises(BadSample, match=r"^image"):
                formats.decode_rgb(source.read(tree.root, sample).image)
        elif defect == "mismatched size":
            raw = source.read(tree.root, sample)
            assert formats.image_size(raw.image) != raw.target.shape
        else:
            assert defect in ("grey image", "RGBA image")
            raw = source.read(tree.root, sample)
            assert formats.decode_rgb(raw.image).shape == (*raw.target.shape, 3)


@pytest.mark.parametrize("name", SOURCES)
def test_other_datasets_folders_do_not_match(name, written):
    for other in SOURCES:
        if LAYOUTS[other] != LAYOUTS[name]:
            listing = SOURCES[name].list(written(other, SCENES).root)
            assert not listing.samples
            assert not listing.rejected


@pytest.mark.parametrize("name", SOURCES)
def test_empty_folder_gives_an_empty_listing(name, tmp_path):
    assert not SOURCES[name].list(Folder(tmp_path)).samples


@pytest.mark.parametrize("name", SOURCES)
def test_missing_file_is_not_blamed_on_the_sample(name, written, tmp_path):
    tree, source = written(name, SCENES), SOURCES[name]
    sample = source.list(tree.root).samples[0]
    with pytest.raises(OSError, match=sample.files["depth"].rsplit("/", 1)[-1]):
        source.read(Folder(tmp_path), sample)


@pytest.mark.parametrize("name", SOURCES)
def test_remote_folders_read_the_same(name, written):
    tree, source = written(name, SCENES), SOURCES[name]
    remote = fsspec.filesystem("memory")
    for path in tree.root.files():
        remote.pipe(f"/raw/{name}/{path}", tree.root.read_bytes(path))
    there = Folder(f"memory://raw/{name}")
    listing = source.list(there)
    assert listing == source.list(tree.root)
    sample = next(s for s in listing.samples if s.sample_id not in tree.traps)
    local, far = source.read(tree.root, sample), source.read(there, sample)
    np.testing.assert_array_equal(local.target, far.target)
    assert local.image == far.image


@pytest.mark.parametrize("name", SOURCES)
def test_image_that_is_no_picture_is_refused(name, written):
    """For instance the HTML page of a download that needed a login."""
    tree, source = written(name, SCENES), SOURCES[name]
    sample = next(s for s in source.list(tree.root).samples if s.sample_id not in tree.traps)

    class Garbled(Folder):
        def read_bytes(self, relative: str) -> bytes:
            return b"<html>" if relative == sample.files["image"] else super().read_bytes(relative)

    with pytest.raises(BadSample, match=r"^image is neither JPEG nor PNG"):
        source.read(Garbled(tree.root.uri), sample)
