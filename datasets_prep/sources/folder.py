"""Photos with depth of a user: two folders and a short description.

Layout: `images/<name>.{jpg,png,webp,bmp,ppm,pgm,tif}` and `depth/<name>.{png,npy,npz,exr,pfm,tif,pgm,h5}`
with the same names, endings in any case, and `dataset.yaml`. Names may have folders in them
(`images/kitchen/0001.jpg`, `depth/kitchen/0001.png`); the folder is then a scene, which a random split keeps
together. The whole may be a zip or tar archive.

`splits/{train,val,test}.txt` may list images, one a line: their names, or paths with or without `images/`,
folders above it and the ending, as Linux or Windows writes them; a name without its folder, if only one image
has it. A line that names no image, and an image in two lists, are errors.

`dataset.yaml`:

    name: my_robot          # of the prepared dataset: small letters, digits, _
    quantity: depth         # or inverse_depth, or disparity (the same, of a stereo pair)
    metric: true            # whether `scale` makes metres of stored depth (1/metres of inverse depth)
    scale: 0.001            # metres per stored unit; here millimetres are stored
    invalid: [0]            # stored values that mean "no ground truth"; one may be given alone
    sky: null               # a stored value that means "infinitely far", or null
    resize_depth: false     # whether depth of another size is resized to the photo; both of one aspect ratio
    exif: null              # apply: depth is upright as the photo is shown; ignore: as the photo is stored
    channel: null           # EXR channel, array of NPZ or HDF5; null: the one called depth, or the only one

Only `name`, `quantity` and `metric` are needed, `scale` where `metric` is true, `exif` where photos have an
EXIF orientation. Depth of unknown scale is used up to scale; inverse depth of unknown scale up to scale and
shift. With focal length f (pixels) and baseline b (metres), metric disparity in pixels has the scale
1 / (f · b).

Invalid pixels: those with a value of `invalid`, those that are not finite, and depth that is not positive.
"""

import hashlib
import math
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats.any_map import DECODERS, decode_map
from datasets_prep.formats.photos import ENDINGS, read_photo, upright
from datasets_prep.formats.pictures import image_size
from datasets_prep.settings import Section
from datasets_prep.sources.base import Listing, Quantity, RawSample, Rejection, Source, TargetKind
from datasets_prep.sources.files_by_sample import collect_files
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder
from datasets_prep.strict_yaml import InvalidYaml, load_yaml

DESCRIPTION_NAME = "dataset.yaml"
_MAX_DESCRIPTION_BYTES = 2**20
_ENDING = re.compile(rf"(?i)\.(?:{'|'.join((*ENDINGS, *DECODERS))})$")


class Description(Section):
    """Keys of `dataset.yaml`, as described above.

    `name`, `quantity`, `metric`, `scale`, `invalid`, `sky`, `resize_depth`, `exif`, `channel`.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # sky may be

    name: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    quantity: Literal["depth", "inverse_depth", "disparity"]
    metric: bool
    scale: float | None = Field(None, gt=0, allow_inf_nan=False)
    invalid: tuple[float, ...] = (0.0,)
    sky: float | None = None
    resize_depth: bool = False
    exif: Literal["apply", "ignore"] | None = None
    channel: str | None = Field(None, min_length=1)

    @field_validator("invalid", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        values = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, bool) for one in values):
            raise ValueError("expected numbers, not true or false")
        return values if isinstance(value, int | float) else value

    @field_validator("sky")
    @classmethod
    def _is_some_value(cls, value: float | None) -> float | None:
        if value is not None and math.isnan(value):
            raise ValueError("pixels that are not a number have no ground truth; expected a number or null")
        return value

    @model_validator(mode="after")
    def _metric_has_scale(self) -> "Description":
        if self.metric != (self.scale is not None):
            raise ValueError("scale: needed where metric is true, and only there")
        return self

    @property
    def target_kind(self) -> TargetKind:
        """Kind of ground truth that the description makes of the stored values."""
        if self.metric:
            return "metric"
        return "up-to-scale" if self.quantity == "depth" else "affine"


class FolderSource(PairedSource):
    """The dataset of a user; see the module's docstring.

    Args:
        description: content of its `dataset.yaml`, which decides `target_kind`; None until a root is opened.
    """

    name = "folder"
    target_kind: TargetKind = "up-to-scale"
    layout = (
        "dataset.yaml, which says what the depth is\n"
        f"images/<name>.{{{','.join(ENDINGS)}}}\ndepth/<name>.{{{','.join(DECODERS)}}}\n"
        "splits/{train,val,test}.txt, if any"
    )
    pattern = re.compile(
        rf"(?is)images/(?P<image>.+)\.(?:{'|'.join(ENDINGS)})|depth/(?P<depth>.+)\.(?:{'|'.join(DECODERS)})"
    )
    missing = (
        ("depth", f"no depth/{{name}} that ends in {', '.join(DECODERS)}"),
        ("image", f"no images/{{name}} that ends in {', '.join(ENDINGS)}"),
    )
    repeated = "second file of the name of {first}"
    list_pattern = re.compile(r"(?i)splits/(?:(?P<train>train)|(?P<val>val)|(?P<test>test))\.txt")
    lists_are_exact = True

    def __init__(self, description: Description | None = None) -> None:
        self._description = description
        if description is not None:
            self.name, self.target_kind = description.name, description.target_kind
            self.sizes_may_differ = description.resize_depth
            self.fingerprint = hashlib.sha256(description.model_dump_json().encode()).hexdigest()

    def opened(self, root: Folder, options: Mapping[str, object]) -> Source:
        """The source that the description in `root` makes of it; as `Source.opened` with `options`."""
        super().opened(root, options)
        return FolderSource(read_description(root))

    def list(self, root: Folder) -> Listing:
        """See `Source.list`; empty without a description.

        A sample with two depth maps is left out: nothing says which of them is the ground truth.
        """
        listing, files = Listing(), root.files()
        if DESCRIPTION_NAME not in files:
            return listing
        found, copies = collect_files(files, self.pattern, ())
        listing.rejected += [Rejection(copy, self.repeated.format(first=first)) for copy, first in copies]
        ambiguous = {first: copy for copy, first in copies}
        for (_, name), of_sample in found.items():
            depth = of_sample.get("depth", "")
            if depth in ambiguous:
                reason = f"two depth maps, {depth} and {ambiguous[depth]}: keep one of them"
                listing.rejected.append(Rejection(depth, reason))
            else:
                self.add(listing, "", name, of_sample)
        for path in files:
            if path != DESCRIPTION_NAME and not (self.pattern.fullmatch(path) or self.split_of_list(path)):
                listing.unused.append(Rejection(path, _why_unused(root, path)))
        return listing

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: the folder in a name is a group, else each image is one."""
        return Sample(name, files, group=name.rpartition("/")[0] or name)

    def reader_of_lines(self, keys: AbstractSet[str]) -> Callable[[str], Sequence[str]]:
        """See `Source.reader_of_lines`: the forms of a line are described in the module's docstring."""
        by_last: dict[str, list[str]] = {}
        for key in keys:
            by_last.setdefault(key.rpartition("/")[2], []).append(key)

        def read(line: str) -> Sequence[str]:
            names = list(_names_in(line))
            exact = next((name for name in names if name in keys), None)
            if exact is not None:
                return [exact]
            bare = [] if re.search(r"[/\\]", line) else names
            return next((by_last[name] for name in bare if name in by_last), [])

        return read

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: an image and its depth or inverse depth in the description's unit."""
        description = self._description or read_description(root)
        path = sample.files["depth"]
        ending = path.rpartition(".")[2].lower()
        stored = decode_map(root.read_bytes(path), ending, "depth", description.channel)
        image = _image_by(description, root.read_bytes(sample.files["image"]))
        _require_size(image_size(image), stored.shape, description)
        sky = stored == description.sky if description.sky is not None else None
        valid = np.isfinite(stored) & ~np.isin(stored, np.array(description.invalid, stored.dtype))
        if sky is not None:
            valid &= ~sky
        if description.quantity == "depth":
            valid &= stored > 0
        target = np.where(valid, stored, 0).astype(np.float32) * np.float32(description.scale or 1.0)
        quantity: Quantity = "depth" if description.quantity == "depth" else "inverse_depth"
        return RawSample(image, target, quantity, valid, sky)


def _image_by(description: Description, data: bytes) -> bytes:
    """The photo `data` as JPEG or PNG in the orientation of its depth."""
    image, orientation = read_photo(data)
    if orientation != 1 and description.exif is None:
        choice = "apply (depth is upright as the photo is shown) or ignore (as the photo is stored)"
        raise BadSample(
            f"image has EXIF orientation {orientation}; add to {DESCRIPTION_NAME} `exif:` {choice}"
        )
    return upright(image, orientation) if description.exif == "apply" else image


def _require_size(image: tuple[int, int], depth: tuple[int, ...], description: Description) -> None:
    """Refuse depth of another size; where that is allowed, of another aspect ratio.

    Height and width of the smaller may be rounded: 621x187 has the aspect ratio of 1242x375.
    """
    (height, width), (rows, columns) = image, depth
    if (rows, columns) == image:
        return
    sizes = f"size mismatch: image is {width}x{height}, ground truth is {columns}x{rows}"
    if not description.resize_depth:
        hint = f"if both show the same view, add to {DESCRIPTION_NAME} `resize_depth: true`"
        raise BadSample(f"{sizes}; {hint}")
    if abs(width * rows - height * columns) > max(max(image, depth)):
        raise BadSample(f"{sizes}: another aspect ratio")


def _names_in(line: str) -> Iterator[str]:
    """The names that `line` of a list may mean, the most literal first; with and without an ending."""
    first = re.split(r"[\s,]+", line)[0]
    for text in (line, line.replace("\\", "/"), *([first] if _ENDING.search(first) else [])):
        path = posixpath.normpath(unicodedata.normalize("NFC", text))
        inside = [match.end() for match in re.finditer(r"(?i)(?:^|/)(?:images|depth)/", path)]
        for start in (*([] if path.startswith("/") else [0]), *inside):
            yield path[start:]
            yield _ENDING.sub("", path[start:])


def _why_unused(root: Folder, path: str) -> str:
    """Why the file `path` is none of a sample. Raises WrongLayout if it can only be meant as a list."""
    top = path.partition("/")[0].lower()
    if top == "splits":
        raise WrongLayout(f"{root.uri}/{path}: lists are called splits/train.txt, val.txt and test.txt")
    endings = {"images": ENDINGS, "depth": tuple(DECODERS)}.get(top)
    if endings is None or "/" not in path:
        return "not read: neither in images/ nor in depth/"
    return f"not read: files in {top}/ end in {', '.join(endings)}"


def read_description(root: Folder) -> Description:
    """The description `dataset.yaml` in the dataset root `root`.

    Raises WrongLayout if it is missing or not valid; the message names the key.
    """
    where = f"{root.uri}/{DESCRIPTION_NAME}"
    if not root.has_file(DESCRIPTION_NAME):
        problem = f"no file {where}: it says what the depth is (name, quantity, metric, scale)"
        raise WrongLayout(problem + _place_in_archive(root))
    try:
        content = load_yaml(root.read_bytes(DESCRIPTION_NAME, most=_MAX_DESCRIPTION_BYTES))
    except (InvalidYaml, BadSample) as error:  # the latter if it is damaged in an archive
        raise WrongLayout(f"{where}: {error}") from error
    if not isinstance(content, dict):
        raise WrongLayout(f"{where}: expected keys with values, got {type(content).__name__}")
    try:
        return Description(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise WrongLayout(f"{where}: {_first_problem(error)}") from error


def _place_in_archive(root: Folder) -> str:
    """A hint at the datasets in other folders of an archive; empty for any other folder."""
    files = root.files() if root.in_archive else []
    found = [posixpath.dirname(path) for path in files if path.endswith(f"/{DESCRIPTION_NAME}")]
    places = " or ".join((root / place).uri for place in found[:3])
    return f"; the archive has one in a folder: give {places}" if places else ""


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = f"{'.'.join(str(part) for part in problem['loc']):.80}"
    message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "number or a list")
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; there are: {', '.join(Description.model_fields)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    return f"{key}: {message}, got {problem['input']!r:.80}" if key else message
