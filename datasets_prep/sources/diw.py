"""DIW, Depth in the Wild: web photos with one pair of points each; zero-shot evaluation by WHDR.

Where: http://www-personal.umich.edu/~wfchen/depth-in-the-wild (W. Chen et al., "Single-Image Depth Perception
in the Wild", NIPS 2016): photos, and `DIW_Annotations_splitted.tar.gz`. Licence: none stated; the photos are
from Flickr.

Layout: `DIW_{train,val,test}.csv`, and the photos (JPEG) under the paths that these name, such as
`DIW_test/<hash>.thumb`; any folders above are accepted. About 496,000 photos, 74,441 for testing, of many
sizes. In the CSV, two lines belong together: the photo's path, beginning with `./`, and
`<row A>,<column A>,<row B>,<column B>,<relation>,<width>,<height>`.

Values: points are counted from 1, the row comes first (readers that take the column first measure noise). The
relation `>` means that A is farther than B, `<` that it is nearer. Anything else, including `=`, is an error
of the annotation, and left out.

Splits: the three files'. Every split keeps its photos as they are. Each photo is its own group.
"""

import posixpath
import re

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats.pictures import image_size
from datasets_prep.sources.base import Listing, RawPointPair, Rejection, Source
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

_TABLE = re.compile(r"(?:(?P<folder>.*)/)?DIW_(?P<split>train|val|test)\.csv")
_MAX_TABLE_BYTES = 64 * 2**20
_MAX_TABLE_LINES = 2_000_000  # the largest table has 40 MB in 842,000 lines
_RELATION = re.compile(r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5}),([<>]),(\d{1,5}),(\d{1,5})")


class DIW(Source):
    """Depth in the Wild as published; see the module's docstring."""

    name = "diw"
    target_kind = "ordinal"
    layout = "DIW_{train,val,test}.csv\nDIW_<split>/<hash>.thumb, as the tables name them"
    evaluation_splits = frozenset({"train", "val", "test"})

    def list(self, root: Folder) -> Listing:
        """Take photos and annotations from the tables below `root`."""
        listing, paths = Listing(), set(root.files())
        for path in sorted(paths):
            if match := _TABLE.fullmatch(path):
                table = root.read_bytes(path, most=_MAX_TABLE_BYTES).decode("utf-8", errors="replace")
                entries = [line.strip() for line in table.splitlines() if line.strip()]
                if len(entries) > _MAX_TABLE_LINES:
                    raise WrongLayout(f"{path} has {len(entries)} lines, more than {_MAX_TABLE_LINES}")
                for name, relation in zip(entries[::2], entries[1::2], strict=False):
                    self._add(listing, paths, (match["folder"] or "", match["split"]), name, relation)
                if len(entries) % 2:
                    reason = f"its last line {entries[-1][:80]!r} has no pair"
                    listing.rejected.append(Rejection(path, reason))
        return listing

    def _add(
        self, listing: Listing, paths: set[str], table: tuple[str, str], name: str, relation: str
    ) -> None:
        folder, split = table
        path = posixpath.normpath(posixpath.join(folder, name))
        # A path is only compared with what was found; no path of a table is ever opened.
        if path not in paths:
            listing.rejected.append(Rejection(name[:200], f"photo of DIW_{split}.csv is not there"))
        elif not _RELATION.fullmatch(relation):
            reason = f"annotation {relation[:80]!r} is not <y>,<x>,<y>,<x>,< or >,<width>,<height>"
            listing.rejected.append(Rejection(path, reason))
        else:
            sample_id = posixpath.splitext(posixpath.relpath(path, folder or "."))[0]
            sample = Sample(sample_id, {"image": path}, group=sample_id, split=split, annotation=relation)
            listing.samples.append(sample)

    def read(self, root: Folder, sample: Sample) -> RawPointPair:
        """Read `sample` of `root`: a photo; its points come from the table."""
        image = read_image(root, sample)
        size = image_size(image)
        match = _RELATION.fullmatch(sample.annotation)
        assert match is not None  # checked by `list`
        y_a, x_a, y_b, x_b, width, height = (int(match[i]) for i in (1, 2, 3, 4, 6, 7))
        if size != (height, width):
            found = f"image is {size[1]}x{size[0]}"
            raise BadSample(f"size mismatch: {found}, its annotation is of {width}x{height}")
        return RawPointPair(image, y_a - 1, x_a - 1, y_b - 1, x_b - 1, a_is_farther=match[5] == ">")
