"""A typed config for each job; the defaults are the paper's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from datasets_prep.errors import UserError
from datasets_prep.settings import (
    MOST,
    IngestSettings,
    Section,
    Seed,
    ShardSettings,
    Side,
    StereoSettings,
)
from pipelines.sampling.plan import Sampling


class ConfigError(UserError):
    """An invalid config; the message names the key of each problem, one per line."""

    has_lines = True


TaskName = Literal["depth", "metric_depth", "segmentation"]
Schedule = Literal["constant", "poly", "cosine"]
"""`constant` is the paper's for depth; `poly` (power 0.9) the paper's for segmentation (section 4.2)."""
MetricRegion = Literal["all", "garg", "eigen"]
Executor = Literal["local", "ray"]
Device = Literal["auto", "cpu", "cuda"]
"""`auto` uses GPUs if the cluster has any."""
SizeRule = Literal["minimal", "lower_bound", "upper_bound"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
"""Share of the old value in a moving average."""

Trim = Annotated[float, Field(ge=0.0, lt=1.0)]
"""Share of an image's residuals."""

Weight = Annotated[float, Field(ge=0.0, le=1e6)]
"""Factor of a loss."""

LearningRate = Annotated[float, Field(gt=0.0, le=10.0)]
Metres = Annotated[float, Field(gt=0.0, le=1e5)]
Steps = Annotated[int, Field(ge=1, le=MOST)]
Batch = Annotated[int, Field(ge=1, le=100_000)]
"""Number of images."""

Workers = Annotated[int, Field(ge=1, le=100_000)]
Failures = Annotated[int, Field(ge=0, le=1_000_000)]
Scales = Annotated[int, Field(ge=1, le=12)]
"""Number of scales of gradient matching: each halves the image."""

Pixel = Annotated[int, Field(ge=0, le=100_000)]
"""Coordinate in an image."""

Factor = Annotated[float, Field(gt=0.0, le=100.0)]


def _ascending(factors: tuple[float, float]) -> tuple[float, float]:
    if factors[0] > factors[1]:
        raise ValueError(f"{factors} must be two positive factors, the smaller first")
    return factors


def _one_or_two(what: str, least: int, most: int) -> BeforeValidator:
    """Checks one integer or two, described by `what`: of a union Pydantic would report either mismatch."""

    def check(given: Any) -> Any:
        parts = given if isinstance(given, list | tuple) and len(given) == 2 else [given]
        if not all(
            isinstance(part, int | float) and part % 1 == 0 and least <= part <= most for part in parts
        ):
            raise ValueError(f"expected an integer or {what}, from {least} to {most}, got {given!r}")
        return given

    return BeforeValidator(check)


Range = Annotated[tuple[Factor, Factor], AfterValidator(_ascending)]
"""Smallest and largest factor of a random augmentation."""


class ModelSection(Section):
    """The model to train.

    Attributes:
        name: one of `dpt.list_models()`.
        pretrained: initialise the backbone with ImageNet weights (paper section 4.1), which are downloaded.
        overrides: further arguments of `dpt.create_model`: taps, readout, features, …
        start: a trained model to start from, architecture and weights: a registered one, or any file or
            folder that `dpt predict --model` takes. Overrides all other model settings.
    """

    name: str = "dpt_large"
    pretrained: bool = True
    overrides: dict[str, Any] = Field(default_factory=dict)
    start: str | None = None


class LossSection(Section):
    """Scale- and shift-invariant trimmed loss with gradient matching (MiDaS, equations 5 to 11).

    Attributes:
        trim: share of an image's largest residuals that are ignored.
        gradient_weight: weight α of multi-scale gradient matching.
        gradient_scales: number of scales of gradient matching.
        trims, gradient_weights: dataset → its own `trim` and `gradient_weight`. Depth Anything V2 ignores 0.1
            of the residuals of pseudo-labels, and matches gradients on synthetic images only.
    """

    trim: Trim = 0.2
    gradient_weight: Weight = 0.5
    gradient_scales: Scales = 4
    trims: dict[str, Trim] = Field(default_factory=dict)
    gradient_weights: dict[str, Weight] = Field(default_factory=dict)


class PerturbSection(Section):
    """Strong perturbations of a student's images (Depth Anything, section 3.2).

    Attributes:
        datasets: those whose images are perturbed, the pseudo-labelled ones; empty for none.
        jitter: probability of colour jitter.
        brightness, contrast, saturation: ranges of its factors.
        hue: largest rotation of hue, in turns.
        blur: probability of Gaussian blur.
        sigma: range of its standard deviation in pixels.
        cutmix: probability of CutMix.
    """

    datasets: tuple[str, ...] = ()
    jitter: Share = 0.8
    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: float = Field(0.25, ge=0.0, le=0.5)
    blur: Share = 0.5
    sigma: Range = (0.1, 2.0)
    cutmix: Share = 0.5


class FeatureAlignmentSection(Section):
    """Alignment of features with those of a frozen encoder (Depth Anything, section 3.3).

    Attributes:
        datasets: those whose images are aligned, in the paper the pseudo-labelled ones; empty for none.
        encoder: a timm model with its weight tag, which is downloaded. It must have as many channels as the
            model's own encoder.
        weight: of the loss.
        margin: α, the cosine above which a pixel's features are alike enough.
    """

    datasets: tuple[str, ...] = ()
    encoder: str = "vit_large_patch14_dinov2.lvd142m"
    weight: Weight = 1.0
    margin: Share = 0.85


class MetricDepthSection(Section):
    """Fine-tuning on depth in metres (paper section 4.1); `nyu.yaml` and `kitti.yaml` have other values.

    The augmentation is that of BTS (Lee et al. 2019), a baseline of the paper, which does not name its own.

    Attributes:
        cap: largest ground-truth depth in metres that counts in an evaluation.
        region: crop in which ground truth counts: `all`, KITTI's `garg` or NYUv2's `eigen`.
        kb_crop: train and evaluate on the KITTI benchmark's crop, 352×1216 at the bottom centre.
        border: top, left, bottom and right of the part to train on, in pixels; NYUv2's images have blank
            borders.
        image_size: inference size of the fine-tuned model in pixels, a side or [width, height]; None keeps
            that of the original.
        silog_weight: λ of the scale-invariant error (Eigen et al. 2014, equation 4).
        gradient_weight, gradient_scales: weight and number of scales of gradient matching between logarithms
            of depth. The weight is 0 for sparse ground truth, as in the paper for KITTI.
        rotation: largest random rotation of a crop in degrees.
        coloured: probability of colour jitter.
        gamma, brightness, colour: ranges of its factors; `colour` is drawn for each channel.
    """

    cap: Metres = 80.0
    region: MetricRegion = "all"
    kb_crop: bool = False
    border: tuple[Pixel, Pixel, Pixel, Pixel] | None = None
    image_size: Annotated[Side | tuple[Side, Side], _one_or_two("[width, height]", 32, 8192)] | None = None
    silog_weight: float = Field(0.5, ge=0.0, le=1.0)
    gradient_weight: Weight = 0.5
    gradient_scales: Scales = 4
    rotation: float = Field(1.0, ge=0.0, le=45.0)
    coloured: Share = 0.5
    gamma: Range = (0.9, 1.1)
    brightness: Range = (0.9, 1.1)
    colour: Range = (0.9, 1.1)

    @model_validator(mode="after")
    def _fits_together(self) -> MetricDepthSection:
        if self.kb_crop and self.border is not None:
            raise ValueError("border: cannot be given together with kb_crop")
        if self.border is not None:
            top, left, bottom, right = self.border
            if not (top < bottom and left < right):
                raise ValueError(f"border: {self.border} is not top, left, bottom, right")
        return self


class OptimizerSection(Section):
    """Adam with two learning rates and multi-objective optimisation (paper section 4.1).

    Attributes:
        backbone_lr: learning rate of the pretrained backbone.
        decoder_lr: learning rate of all other layers, which are trained from scratch.
        betas: of Adam.
        schedule: of both learning rates (`pipelines.training.optimizer`).
        warmup: number of steps of linear warm-up.
        objective: how the gradients of the datasets are combined: `multi_objective` takes their min-norm
            combination (`dpt.multi_objective`), `average` the gradient of the mean loss over images. A model
            with batch normalisation, or that uses parameters in a way that `dpt.dataset_gradients` does not
            know, runs once for every dataset in the batch, any other once
            for all, and is not compiled then.
        gram: how several workers find the scalar products of the datasets' gradients, from which their
            weights follow: `sketch` estimates them to 0.6 % (`dpt.sketch`) and exchanges one gradient;
            `exact` exchanges the gradient of every dataset.
        two_passes: find the weights in one pass, without keeping gradients, and the gradient in another:
            needs the memory of `average` and up to twice its time. `fsdp` always does, from sketches.
        accumulate: number of micro-batches of a rank's share of a batch (gradient accumulation).
        clip_norm: largest norm of the gradient, to which longer ones are clipped; 0 for no clipping.
        ema: decay of a moving average of the weights, which is then validated and published; 0 for none.
    """

    backbone_lr: LearningRate = 1e-5
    decoder_lr: LearningRate = 1e-4
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    schedule: Schedule = "constant"
    warmup: int = Field(0, ge=0, le=MOST)
    objective: Literal["multi_objective", "average"] = "multi_objective"
    gram: Literal["sketch", "exact"] = "sketch"
    two_passes: bool = False
    accumulate: Batch = 1
    clip_norm: float = Field(0.0, ge=0.0, le=1e6)
    ema: Decay = 0.0


class SegmentationSection(Section):
    """Settings of task=segmentation (paper section 4.2, after Zhang et al., ResNeSt, 2020).

    Attributes:
        resize: longer side of an image in pixels, before random rescaling.
        rescale: range of the random rescaling factor.
        auxiliary_weight: weight of the auxiliary head's loss.
        momentum: of SGD.
        weight_decay: of all parameters. The paper does not give it; this is the value of Zhang et al.
    """

    resize: Side = 520
    rescale: Range = (0.5, 2.0)
    auxiliary_weight: Weight = 0.2
    momentum: Decay = 0.9
    weight_decay: float = Field(1e-4, ge=0.0, le=1.0)


class InferenceSection(Section):
    """Inference of a segmentation model (`dpt.predict.classes`).

    Attributes:
        scales: of sliding windows, whose class probabilities are averaged; if empty, the network runs once
            on the whole image.
        flip: average with the prediction for the mirrored image.
    """

    scales: tuple[Annotated[float, Field(gt=0.0, le=8.0)], ...] = ()
    flip: bool = False


PAPER_INFERENCE = InferenceSection(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)
"""Protocol of Tables 4 and 5."""


class CapsSection(Section):
    """Largest depth that counts in an evaluation; farther pixels and sky are ignored.

    Attributes:
        metres: for metric datasets (MiDaS caps outdoor sets at 72 to 80 m).
        nearest: for others, as a multiple of the image's nearest valid depth; beyond ten times that, 8-bit
            inverse depth is dominated by quantisation.
    """

    metres: Metres = 80.0
    nearest: float = Field(10.0, gt=1.0, le=1e5)


class MixSection(Section):
    """How often each dataset is sampled.

    Attributes:
        weights: dataset → relative sampling frequency; if empty, `balance` decides.
        balance: sample `datasets` equally, as in the paper, or in proportion to their `size`.
    """

    weights: dict[str, Annotated[float, Field(ge=0.0, le=1e9)]] = Field(default_factory=dict)
    balance: Literal["datasets", "size"] = "datasets"

    @model_validator(mode="after")
    def _weights_fit(self) -> MixSection:
        if self.weights and not sum(self.weights.values()) > 0:
            raise ValueError(f"weights: must be positive, got {self.weights}")
        if self.weights and self.balance == "size":
            raise ValueError("weights: cannot be given together with balance=size")
        return self


class StageSection(MixSection):
    """A stage of a run that samples some of its datasets only.

    Attributes:
        steps: its length.
        datasets: names of the datasets; empty for all.
    """

    steps: Steps
    datasets: tuple[str, ...] = ()


class TrainConfig(MixSection):
    """How a model is trained.

    Attributes:
        task: `depth` up to scale and shift, `metric_depth` in metres, or `segmentation`.
        model, optimizer: see their sections.
        loss, metric_depth, segmentation: settings of the tasks `depth`, `metric_depth` and `segmentation`.
        perturb, feature_alignment: of some datasets, for task=depth; see their sections.
        steps: 60 epochs of 72,000 steps.
        batch_size: global, over all workers.
        crop: side of the random square crops in pixels, or [height, width].
        half_size_share: of the steps, the first, that see crops and their ground truth at half size and learn
            the coarse layout at a fraction of the cost (progressive learning; EfficientNetV2, ICML 2021).
        flip: mirror crops with probability 0.5.
        sampling: `multinomial` draws the dataset of each sample independently, as in the paper; `stratified`
            gives every batch the shares to within one sample.
        stages: first stages of the `steps`, such as the paper's pretraining on curated datasets; the
            remaining steps sample all datasets.
        train_split: split of the shards to train on.
        val_split: split to validate on; datasets without it are not validated.
        seed: of sampling order, crops, flips and initial decoder weights.
        workers: training processes, each with one GPU if `device` is a GPU. Two numbers, [min, max], let the
            run scale with the cluster; the batch stays the same.
        parallel: `ddp` copies the model to every worker; `fsdp` shards it (FSDP2), for backbones whose
            optimiser state does not fit on one GPU.
        compile: what `torch.compile` compiles: `none`, the whole `model`, or `regions`, of which equal ones
            are compiled once (`DPT.compile_regions`). `auto` is `regions` on a GPU, and `none` on CPUs or
            where several objectives are taken apart in one pass, which is never compiled.
        channels_last: use the channels-last memory format for images and convolutions.
        activation_checkpointing: recompute the backbone in the backward pass to save memory.
        device: of training; `auto` uses GPUs if the cluster has any.
        precision: of forward and backward pass; losses and weights are float32. `float64` makes all of them
            float64, to compare runs with different numbers of workers: they sum in a different order, and
            float32 rounding differences grow within tens of steps.
        upsampling: precision of the decoder's upsampling with `precision=bfloat16`, and of the sums after it;
            `bfloat16` halves their memory traffic.
        loader_workers: processes per training process that read and decode; 0 for none.
        executor: where they run: on the same machine (`local`), or as Ray Data actors on any CPUs of the
            cluster (`ray`).
        log_every, validate_every, checkpoint_every: intervals in steps.
        keep_checkpoints: number of newest checkpoints to keep, besides the one with the best validation.
        caps: largest depth that counts in validation of task=depth.
        max_failures: number of restarts from the last checkpoint after a worker is lost.
        max_loss: skip a step if the loss of any image is larger or not finite.
        max_skipped: end the run after this number of skipped steps in a row.
        hang_minutes: restart a worker that finishes no step within this time.
    """

    task: TaskName = "depth"
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    perturb: PerturbSection = PerturbSection()
    feature_alignment: FeatureAlignmentSection = FeatureAlignmentSection()
    metric_depth: MetricDepthSection = MetricDepthSection()
    optimizer: OptimizerSection = OptimizerSection()
    segmentation: SegmentationSection = SegmentationSection()
    steps: Steps = 60 * 72_000
    batch_size: Batch = 16
    crop: Annotated[Side | tuple[Side, Side], _one_or_two("[height, width]", 32, 8192)] = 384
    half_size_share: float = Field(0.0, ge=0.0, lt=1.0)
    flip: bool = True
    sampling: Sampling = "multinomial"
    stages: tuple[StageSection, ...] = ()
    train_split: str = "train"
    val_split: str = "val"
    seed: Seed = 0
    workers: Annotated[Workers | tuple[Workers, Workers], _one_or_two("[minimum, maximum]", 1, 100_000)] = 1
    parallel: Literal["ddp", "fsdp"] = "ddp"
    compile: Literal["none", "regions", "model", "auto"] = "none"
    channels_last: bool = False
    activation_checkpointing: bool = False
    device: Device = "auto"
    precision: Literal["float64", "float32", "bfloat16"] = "bfloat16"
    upsampling: Literal["float32", "bfloat16"] = "float32"
    loader_workers: int = Field(4, ge=0, le=1000)
    executor: Executor = "local"
    log_every: Steps = 100
    validate_every: Steps = 18_000
    checkpoint_every: Steps = 3_600
    keep_checkpoints: int = Field(3, ge=1, le=1_000_000)
    caps: CapsSection = CapsSection()
    max_failures: Failures = 3
    max_loss: float = Field(1e4, gt=0.0, le=1e30)
    max_skipped: Steps = 20
    hang_minutes: float = Field(30.0, gt=0.0, le=10_000.0)

    @property
    def fewest_workers(self) -> int:
        """Minimum number of training processes."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Maximum number of training processes."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    @property
    def of_datasets(self) -> dict[str, tuple[str, ...]]:
        """Key → datasets that it names, of the settings that hold for single datasets."""
        return {
            "loss.trims": tuple(self.loss.trims),
            "loss.gradient_weights": tuple(self.loss.gradient_weights),
            "perturb.datasets": self.perturb.datasets,
            "feature_alignment.datasets": self.feature_alignment.datasets,
        }

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if not 1 <= self.fewest_workers <= self.most_workers <= self.batch_size:
            raise ValueError(
                f"workers: {self.workers} must be from 1 to batch_size ({self.batch_size}), the minimum first"
            )
        several, sketched = self.optimizer.objective != "average", self.optimizer.gram == "sketch"
        if several and not sketched and (self.parallel == "fsdp" or self.optimizer.two_passes):
            raise ValueError("optimizer.gram: exact needs whole gradients: parallel=ddp and two_passes=false")
        if any(side < 32 or side % 32 for side in self.crop_size):
            raise ValueError(f"crop: {self.crop} is not divisible by 32, the decoder's stride")
        if sum(stage.steps for stage in self.stages) >= self.steps:
            raise ValueError(f"stages: they take all {self.steps} steps and leave none for the full mix")
        if self.half_size_share and self.perturb.datasets:
            raise ValueError("half_size_share: CutMix's rectangles cannot be halved; empty perturb.datasets")
        for key, names in self.of_datasets.items():
            if names and self.task != "depth":
                raise ValueError(f"{key}: is for task=depth only, not task={self.task}")
        return self


class EvaluateConfig(Section):
    """How a model is evaluated on prepared datasets.

    Attributes:
        split: of the shards.
        side, rule: input size of the network (`transforms.network_size`); None for the model's own, which it
            was trained at.
        caps: largest depth that counts.
        inference: windows and scales of segmentation, by default the paper's.
        allow_missing: evaluate a segmentation split with missing samples, with a warning.
        workers: processes, each with one GPU if there is one.
        device: `auto` uses GPUs if the cluster has any.
        exact: no TF32 on GPUs (`dpt.FastDPT`).
    """

    split: str = "val"
    side: Side | None = None
    rule: SizeRule | None = None
    caps: CapsSection = CapsSection()
    inference: InferenceSection = PAPER_INFERENCE
    allow_missing: bool = False
    workers: Workers = 1
    device: Device = "auto"
    exact: bool = False


class ZeroShotConfig(Section):
    """How a model is evaluated zero-shot on the sets of Table 1 (`pipelines.zero_shot.sets`).

    Attributes:
        side: of the network's input in pixels, for the image's longer side (on KITTI the shorter); None for
            the size that the model was trained at (paper: 384).
        rule: for which side instead, see `transforms.network_size`; None for the protocol's.
        lists: set → list file of its images, a path or URI; without one, a list in the dataset root is used.
            KITTI needs that of the Eigen test split.
        batch_size: images of equal network size per batch.
        workers: processes, each with one GPU if there is one.
        device: `auto` uses GPUs if the cluster has any.
        precision: of the network; with `float64` results are independent of batches, threads and machines
            up to the last digits.
        exact: no TF32 on GPUs (`dpt.FastDPT`).
        resamples: number of bootstrap resamples for the 95 % confidence intervals of means over images.
        seed: of the bootstrap.
        worst: number of each set's worst images to draw.
    """

    side: Side | None = None
    rule: SizeRule | None = None
    lists: dict[str, str] = Field(default_factory=dict)
    batch_size: Batch = 8
    workers: Workers = 1
    device: Device = "auto"
    precision: Literal["float64", "float32"] = "float32"
    exact: bool = False
    resamples: int = Field(2000, ge=1, le=1_000_000)
    seed: Seed = 0
    worst: int = Field(8, ge=0, le=10_000)


class PredictConfig(Section):
    """How images are predicted.

    Attributes:
        side, rule, device, exact: as in `EvaluateConfig`.
        dtype: of weights and arithmetic; results are always float32. float16 needs a GPU.
        batch_size: images of equal network size per batch.
        write: files per image: values as NumPy array, values as PNG, colour picture.
        colours: name of a Matplotlib colour map.
        ply: horizontal field of view of the camera in degrees; if given, a point cloud is written too.
        attention: layers, counted from 1, whose attention maps are drawn.
        references: tokens whose attention is drawn, as fractions of height and width; as in the paper, the
            upper left and the lower right one.
        inference: windows and scales of segmentation.
        frames: write the outputs of images for every frame of a video.
    """

    side: Side | None = None
    rule: SizeRule | None = None
    device: Device = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    exact: bool = False
    batch_size: Batch = 1
    write: tuple[Literal["npy", "png", "colour"], ...] = ("npy", "png", "colour")
    colours: str = "inferno"
    ply: float | None = Field(None, gt=0.0, lt=180.0)
    attention: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = ()
    references: tuple[tuple[Share, Share], ...] = Field(((0.0, 0.0), (1.0, 1.0)), min_length=1)
    inference: InferenceSection = InferenceSection()
    frames: bool = False


class LabelConfig(ShardSettings):
    """How pictures are labelled by a model, the teacher. All but the last three decide the shards' bytes.

    Attributes:
        network_side, network_rule, exact: `side`, `rule` and `exact` of `PredictConfig`.
        dtype: of weights and arithmetic; float16 needs a GPU.
        batch_size: images of equal network size per batch.
        mirror: compare with the prediction of the mirrored image.
        second_scale: compare with the prediction at this multiple of the network's input size; None not to.
        tolerance: largest difference of two predictions, after alignment, at which a pixel is valid; in units
            of the stored map, which spans 0 to 1.
        min_agreement: images with a smaller share of such pixels are left out.
        sky: pixels of at most this share of the image's largest inverse depth are sky: infinitely far.
        duplicates: leave out a picture if the perceptual hash of an earlier one (dHash) differs in at most
            this many of its 64 bits; None to keep all.
        frame_step: of a video every N-th frame is a picture.
        image_column: of Parquet files; None for `image`, or their only column of binary data.
        threads: CPU cores of a worker. Without GPU the model computes on them, and another number of threads
            sums in another order: labels then differ in their last bits.
        workers: processes that each have the model; None for as many as fit on the cluster.
        gpus: GPUs of a worker. With 0.5 one worker reads and writes while the other one computes.
        device: `auto` uses GPUs if the cluster has any.
    """

    network_side: Side | None = None
    network_rule: SizeRule | None = None
    exact: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Batch = 8
    mirror: bool = True
    second_scale: float | None = Field(0.75, ge=0.25, le=4.0)
    tolerance: float = Field(0.1, gt=0.0, le=1.0)
    min_agreement: Share = 0.0
    sky: float = Field(0.0, ge=0.0, lt=1.0)
    duplicates: int | None = Field(None, ge=0, le=16)
    frame_step: int = Field(25, ge=1, le=1_000_000)
    image_column: str | None = None
    threads: int = Field(1, ge=1, le=1000)
    workers: Workers | None = None
    gpus: float = Field(0.5, gt=0.0, le=1.0)
    device: Device = "auto"

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide the bytes of the shards."""
        return self.model_dump(exclude={"workers", "gpus", "device"})


def require_size_fits(config: EvaluateConfig | PredictConfig) -> None:
    """Check that a `config` sets no size of whole images where they are cut into windows.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in (("side", config.side), ("rule", config.rule)):
        if value is not None and config.inference.scales:
            raise ConfigError(
                f"{name}: windows have the size that the model was trained at; inference.scales=[] takes "
                "whole images of any size"
            )


class TuneConfig(Section):
    """How the trials of a sweep are run, each of them a training with the section `train`.

    Attributes:
        seeds: trainings per variant, with `train.seed`, `train.seed` + 1, …
        concurrency: number of concurrent trials; None for as many as fit on the cluster's GPUs or, without
            GPUs, one per node.
        early_stopping: `asha` stops trials that are worse than most at the same step; `none`, as for the
            paper's tables, trains all to the end.
        grace: ASHA grace period in steps.
        reduction: ASHA reduction factor: of N trials at the same step, the best N/reduction continue.
        hours: time limit, after which trials save and the sweep ends, to be resumed; None for no limit.
        max_failures: restarts of a failed trial from its last checkpoint.
        sides: of Figure 4's images in pixels; empty for five from the training crop's to 5/3 of it.
        latency_runs: number of predictions averaged for Table 9's latency; a tenth more for warm-up.
        pictures: number of validation images per dataset whose predictions are logged.
    """

    seeds: int = Field(1, ge=1, le=10_000)
    concurrency: Workers | None = None
    early_stopping: Literal["none", "asha"] = "none"
    grace: Steps = 18_000
    reduction: int = Field(3, ge=2, le=1000)
    hours: float | None = Field(None, gt=0.0, le=100_000.0)
    max_failures: Failures = 3
    sides: tuple[Side, ...] = ()
    latency_runs: int = Field(400, ge=1, le=1_000_000)
    pictures: int = Field(2, ge=0, le=1000)


class DemoConfig(Section):
    """What `dpt demo` generates.

    Attributes:
        images: per dataset that it trains on.
        others: scenes (of videos: clips) per dataset that it only ingests.
        height, width: of all images in pixels.
        seed: of the random scenes.
    """

    images: int = Field(80, ge=10, le=1_000_000)
    others: int = Field(8, ge=2, le=1_000_000)
    height: int = Field(288, ge=64, le=8192)
    width: int = Field(384, ge=64, le=8192)
    seed: Seed = 0


_OF_OTHER_TASKS = {
    "depth": {"metric_depth", "segmentation", "inference", "allow_missing"},
    "metric_depth": {"loss", "segmentation", "caps"},
    "segmentation": {"loss", "metric_depth", "caps"},
}
"""Task → settings that it does not read."""


def parameters_of(config: BaseModel, task: TaskName | None = None) -> dict[str, Any]:
    """The settings of a `config` that matter to its task, or to the `task` of a config without one.

    A model to start from overrides the other settings of the model.
    """
    task = getattr(config, "task", task)
    values = config.model_dump(mode="json", exclude=_OF_OTHER_TASKS.get(task or "", set()))
    if task == "segmentation" and "optimizer" in values:
        del values["optimizer"]["betas"]  # of Adam
    if isinstance(config, TrainConfig) and config.model.start is not None:
        values["model"] = {"start": config.model.start}
    return values


class Experiment(Section):
    """A config file: one section for each job.

    Attributes:
        stereo, prepare, predict, label, tune, demo: of the command of that name.
        train: of `dpt train` and `dpt finetune`.
        evaluate, zero_shot: of `dpt evaluate`, on shards and `--on` raw sets.
    """

    stereo: StereoSettings = StereoSettings()
    prepare: IngestSettings = IngestSettings()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    zero_shot: ZeroShotConfig = ZeroShotConfig()
    predict: PredictConfig = PredictConfig()
    label: LabelConfig = LabelConfig()
    tune: TuneConfig = TuneConfig()
    demo: DemoConfig = DemoConfig()
