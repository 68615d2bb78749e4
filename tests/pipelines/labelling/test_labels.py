"""The rows of `dpt label`: what they say is what `dpt predict` says."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dpt
from datasets_prep.errors import BadSample
from datasets_prep.schema import decode_image, decode_inverse_depth
from dpt.config import ModelConfig
from pipelines.config import LabelConfig, PredictConfig
from pipelines.labelling import labeller
from pipelines.labelling.labeller import Labeller, label_columns
from pipelines.predict import predict
from tests.support.labelling import NAME, blurred, labelled, planned, save, saved_model
from tests.support.preparing import left_out, pixels

ONE_VIEW = {"mirror": False, "second_scale": None}
RELATIVE = dpt.create_model("dpt_tiny").config
RAMP = np.tile(np.linspace(1, 3, 40, dtype=np.float32), (30, 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three sizes, one of them turned by its EXIF orientation, one already as it is stored."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        save(root / f"{number}.png", blurred(number, 72, 96 if number % 2 else 120))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(blurred(7, 60, 100)).save(root / "turned.jpg", exif=exif, quality=95)
    save(root / "stored.jpg", blurred(8, 48, 64))
    return root


def stored(row: dict) -> np.ndarray:
    return decode_inverse_depth(row["inverse_depth"], row["height"], row["width"])


def test_labels_are_what_predict_writes_up_to_float16(model, photos, tmp_path):
    rows = pixels(labelled(planned([photos], model, tmp_path / "out", **ONE_VIEW)))
    settings = PredictConfig(side=64, write=("npy",))
    for outcome in predict(settings, dpt.load_model(model), [str(photos)], str(tmp_path / "npy")):
        assert outcome.problem is None
    assert len(rows) == 7
    for name, row in rows.items():
        full = np.load(tmp_path / "npy" / f"{Path(name).stem}.npy").astype(np.float64)
        # the nearest pixel's value, then from its smallest to its largest value as 0 to 1
        sides = zip((row["height"], row["width"]), full.shape, strict=True)
        y, x = ((np.arange(n) + 0.5) * o / n for n, o in sides)
        kept = full[y.astype(int)[:, None], x.astype(int)]
        expected = (kept - kept.min()) / (kept.max() - kept.min())
        np.testing.assert_allclose(stored(row), expected, atol=2**-10)
        assert min(row["height"], row["width"]) == 48
        assert decode_image(row["image"]).shape == (row["height"], row["width"], 3)
        assert (row["target_kind"], row["split"], row["agreement"]) == ("affine", "train", None)
    assert (rows["turned.jpg"]["height"], rows["turned.jpg"]["width"]) == (80, 48)


def test_provenance(model, photos, tmp_path):
    dataset = labelled(planned([photos], model, tmp_path, **ONE_VIEW))
    rows = pixels(dataset)
    data = (photos / "stored.jpg").read_bytes()
    # A JPEG of the right size is stored as it is.
    assert rows["stored.jpg"]["image"] == data
    assert rows["stored.jpg"]["source_digest"] == hashlib.sha256(data).hexdigest()
    assert {row["dataset"] for row in rows.values()} == {NAME}
    said = dataset.manifest.settings
    files = [(model / name).read_bytes() for name in ("config.json", "weights.safetensors")]
    assert said["model_digest"] == hashlib.sha256(b"".join(files)).hexdigest()
    assert (said["model"], said["model_version"]) == (str(model), None)
    assert said["network_side"] == 64
    assert "workers" not in said


def test_the_teacher_and_the_settings_decide_the_version(model, photos, tmp_path):
    version = planned([photos], model, tmp_path).plan.version
    assert planned([photos], model, tmp_path, workers=7, gpus=0.2).plan.version == version
    assert planned([photos], model, tmp_path, tolerance=0.2).plan.version != version
    other = saved_model(tmp_path / "other", features=32)
    assert planned([photos], other, tmp_path).plan.version != version


class Hand(torch.nn.Module):
    """Predicts the brightness of the network's input, plus `slope` times the share of its width."""

    size_divisor = 32

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.config, self.slope = RELATIVE, slope
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        across = torch.linspace(0, 1, images.shape[-1])
        return 2 + images.mean(dim=1) + self.slope * across


def rows_of(
    hand: Hand, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, **settings
):
    monkeypatch.setattr(labeller.dpt, "FastDPT", lambda *_: hand)
    return labelled(planned([photos / "1.png"], model, tmp_path, **settings))


def test_a_predictor_that_does_not_mind_mirroring_agrees(photos, tmp_path, monkeypatch, model):
    [row] = pixels(rows_of(Hand(), photos, tmp_path, monkeypatch, model, tolerance=0.05)).values()
    assert row["agreement"] > 0.97
    assert row["valid_share"] == pytest.approx(row["agreement"])


def test_a_predictor_that_sees_what_is_not_there_is_caught(photos, tmp_path, monkeypatch, model):
    # What it adds rises to the right, and in the mirrored picture to the left.
    [row] = pixels(rows_of(Hand(5.0), photos, tmp_path, monkeypatch, model, tolerance=0.2)).values()
    assert row["agreement"] < 0.6
    assert np.isnan(stored(row)).mean() == pytest.approx(1 - row["agreement"])
    # At the same scale and unmirrored there is nothing to disagree with.
    again = rows_of(Hand(5.0), photos, tmp_path / "2", monkeypatch, model, mirror=False, second_scale=1.0)
    assert pixels(again)["1.png"]["agreement"] == 1


def test_images_of_low_agreement_are_left_out(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(labeller.dpt, "FastDPT", lambda *_: Hand(0.6))
    job = planned([photos], model, tmp_path, tolerance=0.1)
    shares = {name: row["agreement"] for name, row in pixels(labelled(job)).items()}
    middle = sorted(shares.values())[3]
    dataset = labelled(planned([photos], model, tmp_path / "2", tolerance=0.1, min_agreement=middle))
    assert set(left_out(dataset)) == {name for name, share in shares.items() if share < middle}
    assert dataset.manifest.quarantined == 3
    assert all("% of the pixels, at least" in reason for reason in left_out(dataset).values())
    assert dataset.manifest.statistics["mean_agreement"] == pytest.approx(
        np.mean([share for share in shares.values() if share >= middle]), rel=1e-6
    )


def test_pixels_that_disagree_are_invalid():
    other = 2 * RAMP + 3
    other[:3, :4] += 4
    columns = label_columns([RAMP, other], RELATIVE, LabelConfig(tolerance=0.2))
    valid = ~np.isnan(decode_inverse_depth(columns["inverse_depth"], 30, 40))
    assert (valid.sum(), valid[:3, :4].any()) == (30 * 40 - 12, False)
    assert columns["agreement"] == pytest.approx(1 - 12 / 1200)


def test_the_teachers_far_end_is_sky():
    values = RAMP.copy()
    values[:6] = 0
    columns = label_columns([values], RELATIVE, LabelConfig())
    kept = decode_inverse_depth(columns["inverse_depth"], 30, 40).astype(np.float64)
    assert columns["sky_share"] == pytest.approx(0.2)
    assert columns["valid_share"] == 1
    np.testing.assert_allclose(kept, values / 3, atol=2**-11)
    # of what is at most half as near as the nearest: 20 of 40 columns have 1.5 or less at 1 + 2 i / 39
    columns = label_columns([RAMP], RELATIVE, LabelConfig(sky=0.5))
    assert columns["sky_share"] == pytest.approx(10 / 40)


def test_without_sky_the_farthest_is_0_and_no_sky():
    columns = label_columns([RAMP], RELATIVE, LabelConfig())
    assert (columns["sky_share"], columns["inverse_depth_min"]) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "predicted"),
    [({"scale": 0.5, "shift": 0.1}, RAMP), ({"scale": 0.5, "shift": 0.1, "invert": True}, 1 / RAMP)],
)
def test_a_metric_teacher_keeps_its_unit(kind, predicted):
    config = ModelConfig.from_dict({**RELATIVE.to_dict(), **kind})
    columns = label_columns([predicted, predicted], config, LabelConfig())
    kept = decode_inverse_depth(columns["inverse_depth"], 30, 40).astype(np.float64)
    assert columns["target_kind"] == "metric"
    np.testing.assert_allclose(kept * columns["scale"], RAMP, rtol=2**-10)
    assert columns["agreement"] == 1


def test_a_prediction_that_is_not_finite_is_refused():
    values = RAMP.copy()
    values[0, :2] = np.nan, np.inf
    for maps in ([values], [RAMP, values]):
        with pytest.raises(BadSample, match="no finite number for 2 of 1200 pixels"):
            label_columns(maps, RELATIVE, LabelConfig())


def test_what_cannot_be_labelled_is_in_quarantine(model, photos, tmp_path, monkeypatch):
    root = tmp_path / "photos"
    save(root / "good.png", blurred(1))
    save(root / "flat.png", np.full((60, 80, 3), 90, np.uint8))
    (root / "bad.jpg").write_bytes(b"no picture")
    buffer = io.BytesIO()
    Image.fromarray(blurred(2)).save(buffer, "JPEG")
    (root / "cut.jpg").write_bytes(buffer.getvalue()[:300])
    save(root / "strip.png", blurred(3, 10, 2000))
    monkeypatch.setattr(labeller.dpt, "FastDPT", lambda *_: Hand())
    dataset = labelled(planned([root], model, tmp_path / "out"))
    reasons = left_out(dataset)
    assert set(pixels(dataset)) == {"good.png"}
    assert reasons["bad.jpg"] == "image is not a readable image"
    assert "not a readable image" in reasons["cut.jpg"]
    assert "is a strip" in reasons["strip.png"]
    assert "the prediction is flat" in reasons["flat.png"]


def test_storage_that_fails_quarantines_nothing(model, photos, tmp_path, monkeypatch):
    job = planned([photos], model, tmp_path)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipelines.labelling.reading._read", fail)
    given = Labeller(job.model, "cpu", job.settings, NAME).label(job.plan.shards[0].samples)
    with pytest.raises(OSError, match="Input/output"):
        list(given)
