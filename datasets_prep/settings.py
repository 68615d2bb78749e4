"""Settings of the data jobs: typed, with the defaults of the paper; no heavy import."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "val", "test"]
ResizeRule = Literal["shorter", "longer", "none"]
"""Which side of an image is given: the shorter, the longer, or neither (it keeps its size)."""

SplitRule = Literal["official", "ablation"]


class IngestSettings(BaseModel):
    """What decides the bytes of the shards, besides the raw data.

    Attributes:
        side: length in pixels of the stored image's shorter (or longer) side (paper: 384).
        resize: which side `side` is. The paper says "longer", but its 384×384 crops then need padding; with
            the default every crop is full. `none` keeps the native size, for fine-tuning. Splits that are
            for evaluation only (`Source.native_splits`) keep it always.
        jpeg_quality: of images that have to be encoded again.
        samples_per_shard: 512 samples of 384×512 are about 150 MB.
        validation_share: share of scenes held out where a dataset has no official split.
        min_valid_share: samples with a smaller share of valid ground truth are quarantined.
        min_dynamic_range: samples whose depth spans a smaller factor (between its 2nd and 98th percentile)
            are quarantined; the default drops only flat maps.
        lists: the authors' list files by split, each a path or URI or several; a split that has a list is
            exactly that list. Without any, lists that lie in the raw folder are used.
        split_rule: `official` splits where there are some, else whole scenes are held out; or that of the
            paper's `ablation`s, for ReDWeb, HRWSI and BlendedMVS (`datasets_prep.plan.ablation_split`).
        options: settings that only this dataset's source has; its description says which.
        seed: decides the order of samples in shards and which scenes are held out.
        limit: take only the first so many samples of the shuffled listing; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(384, ge=32, le=8192)
    resize: ResizeRule = "shorter"
    jpeg_quality: int = Field(95, ge=1, le=100)
    samples_per_shard: int = Field(512, ge=1)
    validation_share: float = Field(0.05, ge=0.0, lt=1.0)
    min_valid_share: float = Field(0.01, gt=0.0, le=1.0)
    min_dynamic_range: float = Field(1.01, ge=1.0)
    lists: dict[Split, str | list[str]] = {}
    split_rule: SplitRule = "official"
    options: dict[str, str | int | float | bool] = {}
    seed: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=1)


Packing = Literal["side_by_side", "half_side_by_side", "over_under", "half_over_under"]
"""How a frame holds its two views, the left eye's on the left or on top. With `half` each view is squeezed to
half its width (or height), so that the frame has the size of one view."""


class RejectionRules(BaseModel):
    """When a frame is left out; the defaults are the authors', in pixels at the resolution of the flow.

    Attributes:
        vertical: how far a pixel may move up or down in a rectified pair.
        vertical_share: share of the pixels that may move farther.
        horizontal_range: largest minus smallest horizontal flow must exceed it: else there is no depth.
        uncertainty: forward and backward flow must agree this well.
        consistent_share: share of the pixels where they must.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vertical: float = Field(2.0, gt=0.0)
    vertical_share: float = Field(0.1, gt=0.0, le=1.0)
    horizontal_range: float = Field(10.0, ge=0.0)
    uncertainty: float = Field(2.0, gt=0.0)
    consistent_share: float = Field(0.7, ge=0.0, lt=1.0)


StereoDataset = Literal["movies", "wsvd"]


class StereoSettings(BaseModel):
    """What decides the bytes that a stereo job writes, besides the videos and lists.

    Attributes:
        flow: `dis` on CPU cores, or `raft`, which is better and wants a GPU. (The authors took PWC-Net+ for
            films and FlowNet2 for web videos.)
        raft_weights: a file of weights; None for torchvision's published ones, which it downloads.
        raft_updates: recurrent refinements of RAFT.
        packing: how frames hold the two views; None for what is usual in the dataset: `side_by_side` for
            films, `half_side_by_side` for WSVD.
        shrink: the disparity's size is the left view's divided by this; None for the dataset's own: 2 for
            films, as the authors did, 1 for WSVD, whose videos are small.
        cut_threshold: score from which two frames belong to different shots, see `shot_cuts`.
        train_rate, validation_rate: frames a second that clips of films take; the latter of the films that
            are held out.
        rules: when a frame is left out.
        jpeg_quality: of the left views.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flow: Literal["dis", "raft"] = "dis"
    raft_weights: str | None = None
    raft_updates: int = Field(12, ge=1)
    packing: Packing | None = None
    shrink: int | None = Field(None, ge=1, le=8)
    cut_threshold: float = Field(0.1, gt=0.0, lt=1.0)
    train_rate: int = Field(4, ge=1, le=60)
    validation_rate: int = Field(1, ge=1, le=60)
    rules: RejectionRules = RejectionRules()
    jpeg_quality: int = Field(92, ge=1, le=100)

    def of(self, dataset: StereoDataset) -> StereoSettings:
        """The same with the dataset's own values where None stands for them."""
        film = dataset == "movies"
        packing = self.packing or ("side_by_side" if film else "half_side_by_side")
        shrink = self.shrink or (2 if film else 1)
        return self.model_copy(update={"packing": packing, "shrink": shrink})

    @property
    def digest(self) -> str:
        """Of all settings, and of the code's own version."""
        return digest_of([1, self.model_dump(mode="json")])


def digest_of(content: object) -> str:
    """16 hexadecimal digits that tell JSON `content` apart."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
