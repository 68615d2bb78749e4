"""A worker's memory does not grow with the pictures it gets: the largest published ones fit."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets_prep.formats.maps import encode_exr
from datasets_prep.formats.pictures import encode_jpeg, encode_png

LIMIT_MIB = 1536

WRITE_A_SHARD = """
import pickle, re, sys
import datasets_prep.ingest.run as ingest
from datasets_prep.plan.shards import IngestSettings, plan_ingest

source, raw, out = sys.argv[1:]
plan = plan_ingest(source, raw, IngestSettings(validation_share=0))
shared = dict(source=source, raw=raw, out=out, version=plan.version, settings=plan.settings.model_dump())
[shard] = plan.shards
result = ingest.write_shard({"shard": pickle.dumps(shard)}, **shared)["result"]
assert '"quarantine": []' in result, result
# Not getrusage: across fork and exec that keeps the peak of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 2**10)
"""


def picture(height: int, width: int) -> np.ndarray:
    """Something with edges and noise, so that nothing compresses unusually well."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 48, width // 48, 3), dtype=np.uint8)
    noise = rng.integers(-9, 10, (height, width, 1), dtype=np.int8)
    return np.clip(cv2.resize(coarse, (width, height)).astype(np.int16) + noise, 0, 255).astype(np.uint8)


def write_eth3d(raw: Path) -> None:
    """24 megapixels, which are stored as they are; every pixel has depth, which the real ones do not."""
    height, width = 4032, 6048
    depth = (1 + picture(height, width)[..., 0].astype(np.float32) / 7).tobytes()
    photo = encode_jpeg(picture(height, width), 95)
    for name in ("DSC_0001", "DSC_0002"):
        for folder, content in (("images", photo), ("ground_truth_depth", depth)):
            path = raw / "courtyard" / folder / "dslr_images" / f"{name}.JPG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def write_irs(raw: Path) -> None:
    """OpenEXR in 4K, with channels that nobody needs."""
    height, width = 2160, 3840
    disparity = picture(height, width)[..., 0].astype(np.float32) + 1
    exr, photo = encode_exr(dict.fromkeys("ABGR", disparity)), encode_png(picture(height, width))
    for number in (1, 2):
        folder = raw / "Home" / "Room"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"d_{number}.exr").write_bytes(exr)
        (folder / f"l_{number}.png").write_bytes(photo)


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["eth3d", "irs"])
def test_a_worker_stays_small_whatever_the_input(source, tmp_path):
    {"eth3d": write_eth3d, "irs": write_irs}[source](tmp_path / "raw")
    command = [sys.executable, "-c", WRITE_A_SHARD, source, str(tmp_path / "raw"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    peak = float(done.stdout)
    print(f"{source}: {peak:.0f} MiB")
    assert peak < LIMIT_MIB
