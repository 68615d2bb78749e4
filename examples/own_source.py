"""A dataset of your own as a source: here photos with a laser scanner's depth in millimetres.

    python examples/own_source.py RAW OUT

For `dpt prepare scanner` instead, move the class into `datasets_prep/sources/scanner.py` and add it to
`SOURCES` there. If your data can be brought into the layout of docs/data.md, they need no code at all.
"""

import re
import sys

import numpy as np
import ray

from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.ingest.run import ingest_all
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.base import RawSample
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder


class Scanner(PairedSource):
    """`<room>/photo_<n>.jpg` beside `<room>/laser_<n>.png`, of 16 bits: millimetres, 0 for none."""

    name = "scanner"
    target_kind = "metric"
    layout = "<room>/photo_<n>.jpg\n<room>/laser_<n>.png"
    pattern = re.compile(r"(?P<room>[^/]+)/(?:photo_(?P<image>\d+)\.jpg|laser_(?P<depth>\d+)\.png)")
    scope = ("room",)  # all photos of a room go to the same split
    missing = (("depth", "no scan {scope}/laser_{name}.png"), ("image", "no photo {scope}/photo_{name}.jpg"))

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: the photo, and depth in metres where the laser came back."""
        millimetres = decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
        metres = millimetres.astype(np.float32) / 1000
        return RawSample(read_image(root, sample), metres, "depth", valid=metres > 0)


def register() -> None:
    """Make the dataset known, in this process and, as Ray's set-up hook, in its workers."""
    # Imported here: of a script's own names Ray's workers get copies, here of the dictionary.
    from datasets_prep.sources import SOURCES

    SOURCES[Scanner.name] = Scanner()


def main(raw: str, out: str) -> None:
    """Prepare the folder `raw` to shards below `out`."""
    register()
    plan = plan_ingest(Scanner.name, raw, IngestSettings())
    ray.init(runtime_env={"worker_process_setup_hook": register})
    done = ingest_all(plan, out)
    print(f"{done.folder.uri}: {done.manifest.samples}, {done.manifest.quarantined} left out")


if __name__ == "__main__":
    main(*sys.argv[1:])
