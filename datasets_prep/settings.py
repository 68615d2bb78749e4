"""Settings of the data jobs: typed, with the defaults of the paper; no heavy import."""

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

MOST = 10**9
"""Upper limit of counts that have no natural one: larger numbers are slips."""

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Side = Annotated[int, Field(ge=32, le=8192)]
"""Side of an image in pixels."""


class Section(BaseModel):
    """Base of all settings: immutable; unknown keys and infinite numbers are errors.

    Every number has a lower and an upper limit, as its field's metadata.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and bool not in _types_in(
            cls.model_fields[str(info.field_name)].annotation
        ):
            raise ValueError(f"expected another type than true or false, got {str(value).lower()}")
        return value


def _types_in(annotation: Any) -> set[Any]:
    """All types in a nested `annotation`."""
    return {annotation}.union(*map(_types_in, get_args(annotation)))


Split = Literal["train", "val", "test"]
ResizeRule = Literal["shorter", "longer", "none"]
"""Side of an image that the resize fixes: the shorter, the longer, or neither (it keeps its size)."""

SplitRule = Literal["official", "ablation"]


class ShardSettings(Section):
    """What all shards of depth have in common.

    Attributes:
        side: length in pixels of the stored image's shorter (or longer) side (paper: 384).
        resize: side that `side` refers to. The paper says "longer", but its 384×384 crops then need padding;
            with the default every crop is full. `none` keeps the native size, for fine-tuning. Splits for
            evaluation (`Source.evaluation_splits`) always keep it.
        jpeg_quality: JPEG quality of images that have to be encoded again.
        samples_per_shard: 512 samples of 384×512 are about 150 MB.
        min_valid_share: samples with a smaller share of valid ground truth are quarantined.
        min_dynamic_range: samples whose depth spans a smaller factor (between its 2nd and 98th percentile)
            are quarantined; the default drops only flat maps.
        seed: seed of the order of samples in shards and of the held-out scenes.
        limit: number of samples to take from the shuffled listing; None for all.
    """

    side: Side = 384
    resize: ResizeRule = "shorter"
    jpeg_quality: int = Field(95, ge=1, le=100)
    samples_per_shard: int = Field(512, ge=1, le=1_000_000)
    min_valid_share: float = Field(0.01, gt=0.0, le=1.0)
    min_dynamic_range: float = Field(1.01, ge=1.0, le=1e6)
    seed: Seed = 0
    limit: int | None = Field(None, ge=1, le=MOST)


class IngestSettings(ShardSettings):
    """Everything besides the raw data that decides the bytes of the shards of `dpt prepare`.

    Attributes:
        validation_share: share of scenes held out where a dataset has no official split.
        lists: the authors' list files by split, each one or several paths or URIs; a split that has a list
            consists of exactly that list. If empty, the lists in the dataset root are used.
        split_rule: `official` splits where there are any, else whole scenes are held out; or the split of the
            paper's ablations, `ablation`, for ReDWeb, HRWSI and BlendedMVS (`plan.ablation_split`).
        options: settings that only this dataset's source has; see its module's docstring.
    """

    validation_share: float = Field(0.05, ge=0.0, lt=1.0)
    lists: dict[Split, str | list[str]] = {}
    split_rule: SplitRule = "official"
    options: dict[str, str | int | float | bool] = {}


Packing = Literal["side_by_side", "half_side_by_side", "over_under", "half_over_under"]
"""Arrangement of the two views in a frame, the left eye's on the left or on top. With `half` each view is
squeezed to half its width (or height), so that the frame has the size of one view."""


class RejectionRules(Section):
    """Thresholds for rejecting a frame; the defaults are the authors', in pixels at the flow's resolution.

    Attributes:
        vertical: largest vertical flow of a pixel in a rectified pair.
        vertical_share: share of the pixels whose vertical flow may be larger.
        horizontal_range: least difference of largest and smallest horizontal flow; below it depth is flat.
        uncertainty: largest disagreement of forward and backward flow.
        consistent_share: share of the pixels that must disagree less than that.
    """

    vertical: float = Field(2.0, gt=0.0, le=1e9)
    vertical_share: float = Field(0.1, gt=0.0, le=1.0)
    horizontal_range: float = Field(10.0, ge=0.0, le=8192.0)
    uncertainty: float = Field(2.0, gt=0.0, le=1e9)
    consistent_share: float = Field(0.7, ge=0.0, lt=1.0)


StereoDataset = Literal["movies", "wsvd"]


class StereoSettings(Section):
    """Everything besides videos and lists that decides the bytes of a stereo job.

    Attributes:
        flow: `dis` on CPU cores, or `raft`, which is better and needs a GPU to be fast. (The authors used
            PWC-Net+ for films and FlowNet2 for web videos.)
        raft_weights: file of weights; None for torchvision's published ones, which are downloaded.
        raft_updates: recurrent refinements of RAFT.
        packing: arrangement of the two views in a frame; None for the dataset's default: `side_by_side` for
            films, `half_side_by_side` for WSVD.
        shrink: factor by which disparity is smaller than the left view; None for the dataset's default: 2
            for films, as the authors did, 1 for WSVD, whose videos are small.
        cut_threshold: score above which two frames belong to different shots, see `stereo.shot_cuts`.
        train_rate, validation_rate: frames per second in clips of films; the latter for held-out films.
        rules: thresholds for rejecting a frame.
        jpeg_quality: JPEG quality of the left views.
    """

    flow: Literal["dis", "raft"] = "dis"
    raft_weights: str | None = None
    raft_updates: int = Field(12, ge=1, le=1000)
    packing: Packing | None = None
    shrink: int | None = Field(None, ge=1, le=8)
    cut_threshold: float = Field(0.1, gt=0.0, lt=1.0)
    train_rate: int = Field(4, ge=1, le=60)
    validation_rate: int = Field(1, ge=1, le=60)
    rules: RejectionRules = RejectionRules()
    jpeg_quality: int = Field(92, ge=1, le=100)

    def of(self, dataset: StereoDataset) -> "StereoSettings":
        """These settings with the defaults of `dataset` instead of None."""
        film = dataset == "movies"
        packing = self.packing or ("side_by_side" if film else "half_side_by_side")
        shrink = self.shrink or (2 if film else 1)
        return self.model_copy(update={"packing": packing, "shrink": shrink})

    @property
    def digest(self) -> str:
        """Digest of all settings and of the version of the code."""
        return digest_of([1, self.model_dump(mode="json")])


def digest_of(content: object) -> str:
    """Digest of the JSON value `content`: 16 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
