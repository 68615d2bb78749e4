"""One typed config a job; the defaults are the paper's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from datasets_prep.errors import UserError
from datasets_prep.settings import IngestSettings, StereoSettings
from dpt.regions import MetricRegion
from pipelines.sampling.plan import Sampling


class ConfigError(UserError):
    """A config that cannot be used; the message names the key, one problem a line."""


TaskName = Literal["depth", "metric_depth", "segmentation"]
Schedule = Literal["constant", "poly", "cosine"]
"""`constant` is the paper's for depth; `poly` (power 0.9) the paper's for segmentation (section 4.2)."""
Executor = Literal["local", "ray"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Limits = tuple[float, float]


class Section(BaseModel):
    """Base of all sections: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(Section):
    """Which network.

    Attributes:
        name: one of `dpt.list_models()`.
        pretrained: start from ImageNet weights of the backbone (paper section 4.1); they are downloaded.
        overrides: anything else that `dpt.create_model` takes: taps, readout, features, …
        start: a trained model to start from, its network as well as its weights: a registered one, or any
            file or folder that `dpt predict --model` takes. The other settings say nothing then.
    """

    name: str = "dpt_large"
    pretrained: bool = True
    overrides: dict[str, Any] = Field(default_factory=dict)
    start: str | None = None


class LossSection(Section):
    """Scale- and shift-invariant trimmed loss with gradient matching (MiDaS, equations 5 to 11).

    Attributes:
        trim: share of the largest residuals of an image that are left out.
        gradient_weight: weight α of multi-scale gradient matching.
        gradient_scales: number of its scales.
    """

    trim: float = Field(0.2, ge=0.0, lt=1.0)
    gradient_weight: float = Field(0.5, ge=0.0)
    gradient_scales: int = Field(4, ge=1)


class MetricDepthSection(Section):
    """Fine-tuning on depth in metres (paper section 4.1); `nyu.yaml` and `kitti.yaml` have theirs.

    The augmentation is that of BTS (Lee et al. 2019), which the paper compares with; it does not say its own.

    Attributes:
        cap: the largest depth in metres that counts in an evaluation.
        region: of the images, in which ground truth counts: `all`, KITTI's `garg` or NYUv2's `eigen` crop.
        kb_crop: use the crop of KITTI's benchmark only, 352×1216 at the lower middle, here and there.
        border: top, left, bottom and right end of what training uses of an image; NYUv2's have blank borders.
        image_size: the model's own inference size from now on; None keeps what it has.
        silog_weight: λ of the scale-invariant error (Eigen et al. 2014, equation 4).
        gradient_weight, gradient_scales: of gradient matching between logarithms of depth; 0 for sparse
            ground truth, as the paper has it for KITTI.
        rotation: turn crops by up to so many degrees.
        coloured: share of the crops whose colours are changed,
        gamma, brightness, colour: within these limits; `colour` for each channel.
    """

    cap: float = Field(80.0, gt=0.0)
    region: MetricRegion = "all"
    kb_crop: bool = False
    border: tuple[int, int, int, int] | None = None
    image_size: int | None = Field(None, ge=32)
    silog_weight: float = Field(0.5, ge=0.0, le=1.0)
    gradient_weight: float = Field(0.5, ge=0.0)
    gradient_scales: int = Field(4, ge=1)
    rotation: float = Field(1.0, ge=0.0, le=45.0)
    coloured: Share = 0.5
    gamma: Limits = (0.9, 1.1)
    brightness: Limits = (0.9, 1.1)
    colour: Limits = (0.9, 1.1)

    @model_validator(mode="after")
    def _fits_together(self) -> MetricDepthSection:
        if self.kb_crop and self.border is not None:
            raise ValueError("border: cannot be given together with kb_crop")
        if self.border is not None:
            top, left, bottom, right = self.border
            if not (0 <= top < bottom and 0 <= left < right):
                raise ValueError(f"border: {self.border} is not top, left, bottom, right")
        for name in ("gamma", "brightness", "colour"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: {low} to {high} are no positive limits, the smaller first")
        return self


class OptimizerSection(Section):
    """Adam with two learning rates and multi-objective optimisation (paper section 4.1).

    Attributes:
        schedule: how the rates change over the run, see `pipelines.training.optimizer`.
        warmup: number of steps in which they rise from nothing.
        objective: how the gradients of the datasets become one: `multi_objective` follows their shortest
            common direction (`dpt.multi_objective`), `average` that of the mean loss over images.
        accumulate: micro-batches that a rank's share of a batch is cut into, to fit into memory.
        clip_norm: longest gradient that is followed as it is; 0 for any.
        ema: decay of a moving average of the weights, which is then what is validated and published; 0 for
            none.
    """

    backbone_lr: float = Field(1e-5, gt=0.0)
    decoder_lr: float = Field(1e-4, gt=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = "constant"
    warmup: int = Field(0, ge=0)
    objective: Literal["multi_objective", "average"] = "multi_objective"
    accumulate: int = Field(1, ge=1)
    clip_norm: float = Field(0.0, ge=0.0)
    ema: float = Field(0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _fits_together(self) -> OptimizerSection:
        if self.objective == "multi_objective" and self.accumulate > 1:
            raise ValueError("accumulate: needs objective=average; a dataset's gradient is one piece")
        return self


class SegmentationSection(Section):
    """What only task=segmentation has (paper section 4.2, after Zhang et al., ResNeSt, 2020).

    Attributes:
        resize: longer side of a photo before it is rescaled, in pixels.
        rescale: the least and the largest factor by which it is rescaled at random.
        auxiliary_weight: weight of the auxiliary head's loss.
        momentum: of stochastic gradient descent.
        weight_decay: of all parameters. The paper does not say; this is what Zhang et al. have.
    """

    resize: int = Field(520, ge=32)
    rescale: tuple[float, float] = (0.5, 2.0)
    auxiliary_weight: float = Field(0.2, ge=0.0)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(1e-4, ge=0.0)

    @model_validator(mode="after")
    def _fits_together(self) -> SegmentationSection:
        if not 0 < self.rescale[0] <= self.rescale[1]:
            raise ValueError(f"rescale: {self.rescale} must be two positive factors, the least first")
        return self


class InferenceSection(Section):
    """How a model of segmentation sees an image (`dpt.predict.classes`).

    Attributes:
        scales: of sliding windows, whose class probabilities are averaged; without any, the image goes
            through the network once, as a whole.
        flip: average with what is predicted for the mirrored image.
    """

    scales: tuple[Annotated[float, Field(gt=0.0, le=8.0)], ...] = ()
    flip: bool = False


PAPER_INFERENCE = InferenceSection(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)
"""What Tables 4 and 5 were measured with."""


class CapsSection(Section):
    """The deepest depth that counts in an evaluation; farther pixels and sky are left out.

    Attributes:
        metres: for metric datasets (MiDaS caps outdoor sets at 72 to 80 m).
        nearest: for the others, as a multiple of the image's nearest valid depth: their 8-bit inverse depth
            says little about what is ten times as far.
    """

    metres: float = Field(80.0, gt=0.0)
    nearest: float = Field(10.0, gt=1.0)


class MixSection(Section):
    """How often each dataset is drawn.

    Attributes:
        weights: dataset → share of the samples; if empty, `balance` decides.
        balance: `datasets` are drawn alike, as in the paper, or each according to its `size`.
    """

    weights: dict[str, float] = Field(default_factory=dict)
    balance: Literal["datasets", "size"] = "datasets"

    @model_validator(mode="after")
    def _weights_fit(self) -> MixSection:
        if self.weights and (min(self.weights.values()) < 0 or not sum(self.weights.values()) > 0):
            raise ValueError(f"weights: must be positive, got {self.weights}")
        if self.weights and self.balance == "size":
            raise ValueError("weights: cannot be given together with balance=size")
        return self


class StageSection(MixSection):
    """A stretch of a run that draws from some of its datasets only.

    Attributes:
        steps: its length.
        datasets: their names; empty for all.
    """

    steps: int = Field(ge=1)
    datasets: tuple[str, ...] = ()


class TrainConfig(MixSection):
    """How a model is trained.

    Attributes:
        task: what is learned: `depth` up to scale and shift, `metric_depth` in metres, or `segmentation`.
        steps: 60 epochs of 72,000 steps.
        batch_size: global, over all workers.
        crop: side of the square random crops in pixels, or [height, width] of others.
        flip: mirror half of the samples.
        sampling: `multinomial` draws each sample's dataset for itself, as the paper does; `stratified` gives
            every batch the shares as nearly as whole samples allow.
        stages: what comes first of the `steps`, such as the paper's pretraining on curated datasets; the
            rest draws from all datasets.
        train_split, val_split: names of the shards' splits; without the second nothing is validated.
        seed: decides order, crops, flips and initial decoder weights.
        workers: training processes; one GPU each where `device` is a GPU. Two numbers, [fewest, most], let
            the run shrink and grow with the cluster; the batch stays the same.
        parallel: `ddp` copies the model to every worker; `fsdp` shards it (FSDP2), for backbones whose
            optimiser state does not fit on one GPU.
        compile: compile the model with `torch.compile`.
        channels_last: keep images and convolutions in channels-last order.
        activation_checkpointing: recompute the backbone in the backward pass to save memory.
        device: `auto` takes GPUs if the cluster has any.
        precision: of the forward and backward pass. Losses are float32 always, and so are weights except with
            `float64`, which is for comparing runs of unequal numbers of workers: these add in another order,
            and in float32 what is rounded otherwise grows within tens of steps.
        loader_workers: processes that read and decode for each training process; 0 for none.
        executor: where they are: beside it (`local`), or as actors of Ray Data on any CPUs of the cluster
            (`ray`).
        log_every, validate_every, checkpoint_every: in steps.
        keep_checkpoints: how many of the newest are kept, besides that of the best validation.
        caps: which pixels count in validation.
        max_failures: how often a run that lost a worker is started again from its last checkpoint.
        max_loss: a step with a larger loss of an image, or one that is not finite, is left out.
        max_skipped: the run ends when so many steps in a row were left out.
        hang_minutes: a worker that finishes no step for so long is taken for dead.
    """

    task: TaskName = "depth"
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    metric_depth: MetricDepthSection = MetricDepthSection()
    optimizer: OptimizerSection = OptimizerSection()
    segmentation: SegmentationSection = SegmentationSection()
    steps: int = Field(60 * 72_000, ge=1)
    batch_size: int = Field(16, ge=1)
    crop: int | tuple[int, int] = 384
    flip: bool = True
    sampling: Sampling = "multinomial"
    stages: tuple[StageSection, ...] = ()
    train_split: str = "train"
    val_split: str = "val"
    seed: int = Field(0, ge=0)
    workers: int | tuple[int, int] = 1
    parallel: Literal["ddp", "fsdp"] = "ddp"
    compile: bool = False
    channels_last: bool = False
    activation_checkpointing: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float64", "float32", "bfloat16"] = "bfloat16"
    loader_workers: int = Field(4, ge=0)
    executor: Executor = "local"
    log_every: int = Field(100, ge=1)
    validate_every: int = Field(18_000, ge=1)
    checkpoint_every: int = Field(3_600, ge=1)
    keep_checkpoints: int = Field(3, ge=1)
    caps: CapsSection = CapsSection()
    max_failures: int = Field(3, ge=0)
    max_loss: float = Field(1e4, gt=0.0)
    max_skipped: int = Field(20, ge=1)
    hang_minutes: float = Field(30.0, gt=0.0)

    @property
    def fewest_workers(self) -> int:
        """The smallest number of training processes."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """The largest number of training processes."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @field_validator("crop", mode="before")
    @classmethod
    def _one_side_or_two(cls, crop: Any) -> Any:
        sides = crop if isinstance(crop, list | tuple) and len(crop) == 2 else [crop]
        if not all(isinstance(side, int) for side in sides):
            raise ValueError(f"expected one whole number, or [height, width], got {crop!r}")
        return crop

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if not 1 <= self.fewest_workers <= self.most_workers <= self.batch_size:
            raise ValueError(
                f"workers: {self.workers} must be from 1 to batch_size ({self.batch_size}), the fewest first"
            )
        if self.parallel == "fsdp" and self.optimizer.objective == "multi_objective":
            raise ValueError("parallel: fsdp needs optimizer.objective=average; it has no whole gradient")
        if any(side < 32 or side % 32 for side in self.crop_size):
            raise ValueError(f"crop: {self.crop} is not divisible by 32, the decoder's stride")
        if sum(stage.steps for stage in self.stages) >= self.steps:
            raise ValueError(f"stages: they take all {self.steps} steps, none are left for the full mix")
        return self


class EvaluateConfig(Section):
    """How a model is evaluated on prepared datasets.

    Attributes:
        split: which split of the shards.
        side, rule: size of the network's input (`transforms.network_size`); None for the model's own,
            which is the size that it was trained at.
        caps: which pixels count, of depth.
        inference: windows and scales of segmentation; the paper's.
        allow_missing: evaluate a segmentation set of which samples were left out of the shards, and say so.
        workers: evaluating processes; one GPU each where there is one.
        device: `auto` takes GPUs if the cluster has any.
    """

    split: str = "val"
    side: int | None = Field(None, ge=32)
    rule: Literal["minimal", "lower_bound", "upper_bound"] | None = None
    caps: CapsSection = CapsSection()
    inference: InferenceSection = PAPER_INFERENCE
    allow_missing: bool = False
    workers: int = Field(1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ZeroShotConfig(Section):
    """How a model is evaluated zero-shot on the sets of Table 1 (`pipelines.zero_shot.sets`).

    Attributes:
        side: of the network's input, which is the longer side of the image (on KITTI the shorter); None for
            the size that the model was trained at (paper: 384).
        rule: which side that is instead, see `transforms.network_size`; None for the protocol's.
        lists: set → list file that says which images belong to it, a path or URI; without one, lists that
            lie in the raw folder are used. KITTI needs that of the Eigen test split.
        batch_size: images that go through the network at once, if they are of one size there.
        workers: evaluating processes; one GPU each where there is one.
        device: `auto` takes GPUs if the cluster has any.
        precision: of the network; with `float64` results do not depend on batches, threads and machines, but
            for the last digits.
        resamples, seed: of the bootstrap, which gives 95 % intervals of the means over images.
        worst: how many of each set's worst images are drawn.
    """

    side: int | None = Field(None, ge=32)
    rule: Literal["minimal", "lower_bound", "upper_bound"] | None = None
    lists: dict[str, str] = Field(default_factory=dict)
    batch_size: int = Field(8, ge=1)
    workers: int = Field(1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float64", "float32"] = "float32"
    resamples: int = Field(2000, ge=1)
    seed: int = Field(0, ge=0)
    worst: int = Field(8, ge=0)


class PredictConfig(Section):
    """How images are predicted; `side`, `rule` and `device` are as in `EvaluateConfig`.

    Attributes:
        dtype: of the arithmetic; results are float32 always. float16 on GPUs only.
        batch_size: how many images are predicted at once that go through the network at one size.
        write: what is written for each image: numbers, a picture of them, a coloured picture.
        colours: a colour map of Matplotlib's.
        ply: horizontal field of view of the camera in degrees; if given, a point cloud is written too.
        attention: layers, counted from 1, whose attention maps are drawn.
        references: tokens whose attention is drawn, as shares of height and width; the paper's are the upper
            left and the lower right one.
        inference: windows and scales of segmentation.
        frames: write for every frame of a video what is written for images.
    """

    side: int | None = Field(None, ge=32)
    rule: Literal["minimal", "lower_bound", "upper_bound"] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(1, ge=1)
    write: tuple[Literal["npy", "png", "colour"], ...] = ("npy", "png", "colour")
    colours: str = "inferno"
    ply: float | None = Field(None, gt=0.0, lt=180.0)
    attention: tuple[int, ...] = ()
    references: tuple[tuple[Share, Share], ...] = Field(((0.0, 0.0), (1.0, 1.0)), min_length=1)
    inference: InferenceSection = InferenceSection()
    frames: bool = False


class TuneConfig(Section):
    """How the trials of a sweep are run, each of them a training with `train`.

    Attributes:
        seeds: how often each variant is trained: with `train.seed`, `train.seed` + 1, …
        concurrency: trials at once; None for as many as the cluster has GPUs for, or nodes if it has none.
        early_stopping: `asha` ends trials that are worse than most when they were as old; `none`, as for the
            paper's tables, trains all to the end.
        grace: steps before which none is ended.
        reduction: ASHA reduction factor: of N trials at the same step, the best N/reduction continue.
        hours: after which the trials save where they are and the sweep ends, to be resumed; None for no end.
        max_failures: how often a trial that crashed is started again from its last checkpoint.
        sides: of Figure 4's images in pixels; empty for five from the training crop's to 5/3 of it.
        latency_runs: how many predictions Table 9's latency is the average of; a tenth more warm up.
        pictures: validation images of each dataset whose predictions are kept.
    """

    seeds: int = Field(1, ge=1)
    concurrency: int | None = Field(None, ge=1)
    early_stopping: Literal["none", "asha"] = "none"
    grace: int = Field(18_000, ge=1)
    reduction: int = Field(3, ge=2)
    hours: float | None = Field(None, gt=0.0)
    max_failures: int = Field(3, ge=0)
    sides: tuple[Annotated[int, Field(ge=32)], ...] = ()
    latency_runs: int = Field(400, ge=1)
    pictures: int = Field(2, ge=0)


class DemoConfig(Section):
    """What `dpt demo` generates.

    Attributes:
        images: of each dataset that it trains on.
        others: scenes (of videos: clips) of each that it only ingests.
        height, width: of all images in pixels.
    """

    images: int = Field(80, ge=10)
    others: int = Field(8, ge=2)
    height: int = Field(288, ge=64)
    width: int = Field(384, ge=64)
    seed: int = Field(0, ge=0)


class Experiment(Section):
    """A config file: one section a job."""

    stereo: StereoSettings = StereoSettings()
    prepare: IngestSettings = IngestSettings()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    zero_shot: ZeroShotConfig = ZeroShotConfig()
    predict: PredictConfig = PredictConfig()
    tune: TuneConfig = TuneConfig()
    demo: DemoConfig = DemoConfig()
