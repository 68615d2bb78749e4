"""Photos so long that a resize would make gigabytes of them."""

import numpy as np
import pytest
from PIL import Image

from tests.support.preparing import left_out, pixels, prepared

DESCRIPTION = "name: mine\nquantity: depth\nmetric: true\nscale: 1\n"


def write(root, name, height, width):
    for folder in ("images", "depth"):
        (root / folder).mkdir(exist_ok=True)
    Image.new("RGB", (width, height), "green").save(root / "images" / f"{name}.png")
    np.save(
        root / "depth" / f"{name}.npy",
        np.linspace(1, 9, height * width, dtype=np.float32).reshape(height, -1),
    )


@pytest.mark.parametrize("shape", [(10, 2000), (2000, 10), (3, 64)])
def test_a_strip_among_good_photos_is_quarantined_by_its_shape(tmp_path, monkeypatch, shape):
    (tmp_path / "dataset.yaml").write_text(DESCRIPTION)
    write(tmp_path, "good", 48, 64)
    write(tmp_path, "panorama", 12, 96)
    write(tmp_path, "strip", *shape)
    monkeypatch.setattr("datasets_prep.ingest.row.normalize", _refusing_strips)
    dataset = prepared("folder", tmp_path, tmp_path / "out", monkeypatch)
    assert set(pixels(dataset)) == {"good", "panorama"}
    height, width = shape
    reason = f"image of {width}x{height} is a strip: its sides may differ by a factor of 20"
    assert left_out(dataset) == {"images/strip.png": reason}


def _refusing_strips(raw, *arguments):
    from datasets_prep.ingest.normalize import normalize

    assert max(raw.target.shape) <= 20 * min(raw.target.shape), (
        "decided by the shape, before anything is made"
    )
    return normalize(raw, *arguments)
