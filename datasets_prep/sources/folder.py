"""Photos with depth of a user: two folders and a short description.

Layout: `images/<name>.{jpg,png}` and `depth/<name>.{png,npy,exr,pfm,tif}` with the same names, and
`dataset.yaml`. Names may have folders in them (`images/kitchen/0001.jpg`, `depth/kitchen/0001.png`); the
folder is then a scene, which a random split keeps together. `splits/{train,val,test}.txt` may list names, one
a line, with or without the suffix.

`dataset.yaml`:

    name: my_robot          # of the prepared dataset: small letters, digits, _
    quantity: depth         # or inverse_depth, or disparity (the same, of a stereo pair)
    metric: true            # whether `scale` makes metres of stored depth (1/metres of inverse depth)
    scale: 0.001            # metres per stored unit; here millimetres are stored
    invalid: [0]            # stored values that mean "no ground truth"
    sky: null               # a stored value that means "infinitely far", or null

Only `name`, `quantity` and `metric` are needed, `scale` where `metric` is true. Depth of unknown scale is
used up to scale; inverse depth of unknown scale up to scale and shift. With focal length f (pixels) and
baseline b (metres), metric disparity in pixels has the scale 1 / (f · b).

Values: PNG of 8 or 16 bits, NPY of numbers, EXR (channel `Z`, `Y`, `G` or `R`, or the only one), PFM, TIFF.

Invalid pixels: those with a value of `invalid`, those that are not finite, and depth that is not positive.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import maps
from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.formats.tiff import decode_tiff
from datasets_prep.sources.base import Listing, Quantity, RawSample, Source, TargetKind
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder
from datasets_prep.strict_yaml import InvalidYaml, load_yaml

DESCRIPTION_NAME = "dataset.yaml"
_MAX_DESCRIPTION_BYTES = 2**20


class Description(BaseModel):
    """`name`, `quantity`, `metric`, `scale`, `invalid` and `sky` of `dataset.yaml`, as described above."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    quantity: Literal["depth", "inverse_depth", "disparity"]
    metric: bool
    scale: float | None = Field(None, gt=0, allow_inf_nan=False)
    invalid: tuple[float, ...] = (0.0,)
    sky: float | None = None

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
        "images/<name>.{jpg,png}\ndepth/<name>.{png,npy,exr,pfm,tif}\nsplits/{train,val,test}.txt, if any"
    )
    pattern = re.compile(
        r"images/(?P<image>.+)\.(?:jpg|jpeg|png|JPG|JPEG|PNG)|depth/(?P<depth>.+)\.(?:png|npy|exr|pfm|tiff?)"
    )
    missing = (("depth", "no depth/{name}.*"), ("image", "no images/{name}.*"))
    repeated = "second file of the name of {first}"
    list_pattern = re.compile(r"splits/(?:(?P<train>train)|(?P<val>val)|(?P<test>test))\.txt")

    def __init__(self, description: Description | None = None) -> None:
        self._description = description
        if description is not None:
            self.name, self.target_kind = description.name, description.target_kind
            self.fingerprint = hashlib.sha256(description.model_dump_json().encode()).hexdigest()

    def opened(self, root: Folder, options: Mapping[str, object]) -> Source:
        """The source that the description in `root` makes of it; as `Source.opened` with `options`."""
        super().opened(root, options)
        return FolderSource(read_description(root))

    def list(self, root: Folder) -> Listing:
        """See `PairedSource.list`; empty without a description."""
        return super().list(root) if DESCRIPTION_NAME in root.files() else Listing()

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: the folder in a name is a group, else each image is one."""
        return Sample(name, files, group=name.rpartition("/")[0] or name)

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The name in `columns`, with or without `images/` before it and a suffix behind it."""
        match = self.pattern.fullmatch(columns[0]) or self.pattern.fullmatch(f"images/{columns[0]}")
        return match["image"] if match and match["image"] else columns[0]

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: an image and its depth or inverse depth in the description's unit."""
        description = self._description or read_description(root)
        path = sample.files["depth"]
        stored = _DECODERS[path.rpartition(".")[2]](root.read_bytes(path), "depth")
        sky = stored == description.sky if description.sky is not None else None
        valid = np.isfinite(stored) & ~np.isin(stored, np.array(description.invalid, stored.dtype))
        if sky is not None:
            valid &= ~sky
        if description.quantity == "depth":
            valid &= stored > 0
        target = np.where(valid, stored, 0).astype(np.float32) * np.float32(description.scale or 1.0)
        quantity: Quantity = "depth" if description.quantity == "depth" else "inverse_depth"
        return RawSample(read_image(root, sample), target, quantity, valid, sky)


def read_description(root: Folder) -> Description:
    """The description `dataset.yaml` in the dataset root `root`.

    Raises WrongLayout if it is missing or not valid; the message names the key.
    """
    where = f"{root.uri}/{DESCRIPTION_NAME}"
    try:
        content = load_yaml(root.read_bytes(DESCRIPTION_NAME, most=_MAX_DESCRIPTION_BYTES))
    except FileNotFoundError as error:
        raise WrongLayout(f"no {where}: it says what the depth is (name, quantity, metric, scale)") from error
    except InvalidYaml as error:
        raise WrongLayout(f"{where}: {error}") from error
    if not isinstance(content, dict):
        raise WrongLayout(f"{where}: expected keys with values, got {type(content).__name__}")
    try:
        return Description(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise WrongLayout(f"{where}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = f"{'.'.join(str(part) for part in problem['loc']):.80}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; there are: {', '.join(Description.model_fields)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    return f"{key}: {message}, got {problem['input']!r:.80}" if key else message


def _decode_npy(data: bytes, role: str) -> NDArray[np.float32]:
    values = maps.decode_npy(data, role)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2 or not values.size:
        raise BadSample(f"{role} NPY holds {values.shape} {values.dtype}, expected a map")
    return values.astype(np.float32)


_DECODERS: dict[str, Callable[[bytes, str], NDArray[Any]]] = {
    "png": lambda data, role: decode_grey_png(data, role).astype(np.float32),
    "npy": _decode_npy,
    "exr": lambda data, role: maps.decode_exr(data, role, ("Z", "Y", "G", "R")),
    "pfm": maps.decode_pfm,
    "tif": decode_tiff,
    "tiff": decode_tiff,
}
