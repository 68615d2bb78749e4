import itertools
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import dpt
from dpt.predict.classes import predict_classes
from dpt.predict.depth import Launched, launch, predict_inverse_depth
from pipelines.cluster.device import resolve_device
from pipelines.config import ConfigError, InferenceSection, PredictConfig
from pipelines.predict import BadImage, BadPrediction, Predictor, predict, predict_one, read_image
from pipelines.prediction.inputs import AmbiguousOutputs, Input
from pipelines.prediction.video import Frame, read_frames, writing_video
from pipelines.tracking.model_reference import BadModel
from tests.support.commands import said
from tests.support.videos import FASTSTART, encoded, noise


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    return dpt.create_model("dpt_tiny").eval()


def photo(path: Path, height: int, width: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))
    return path


def results(settings: PredictConfig, model: dpt.DPT, out: Path, *paths: Path) -> dict[Path, str | None]:
    """What `predict` tells: path → problem, or None."""
    return {o.source.path: o.problem for o in predict(settings, model, list(map(str, paths)), str(out))}


@pytest.mark.parametrize("size", [(50, 70), (33, 200), (1, 1), (300, 40)])
def test_any_size_is_predicted_at_its_own_size(model, tmp_path, size):
    path = photo(tmp_path / "in" / "a.png", *size)
    assert results(PredictConfig(side=64), model, tmp_path / "out", path) == {path: None}
    prediction = np.load(tmp_path / "out" / "a.npy")
    assert (prediction.shape, prediction.dtype) == (size, np.float32)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.npy", "a.png", "a_colour.png"]


def test_a_bad_image_is_named_and_the_others_go_on(model, tmp_path):
    good = photo(tmp_path / "in" / "good.jpg", 40, 40)
    bad, empty = tmp_path / "in" / "bad.jpg", tmp_path / "in" / "empty.jpg"
    bad.write_bytes(b"no image")
    empty.write_bytes(b"")
    expected = {path: f"{path} is not a readable image" for path in (bad, empty)} | {good: None}
    assert results(PredictConfig(), model, tmp_path / "out", bad, empty, good) == expected


def test_batches_hold_images_of_one_network_size(model, tmp_path, monkeypatch):
    shapes = [(64, 64), (64, 128), (60, 62), (64, 64), (64, 130), (128, 64)]
    paths = [photo(tmp_path / f"{n}.png", *shape, seed=n) for n, shape in enumerate(shapes)]
    batches: list[tuple[int, ...]] = []
    handle = model.register_forward_pre_hook(lambda module, inputs: batches.append(tuple(inputs[0].shape)))
    found = results(PredictConfig(batch_size=2, write=("npy",)), model, tmp_path / "out", *paths)
    handle.remove()
    assert set(found) == set(paths)
    assert sorted(batches) == [(1, 3, 64, 64), (1, 3, 128, 64), (2, 3, 64, 64), (2, 3, 64, 128)]
    for path in paths:
        expected = predict_inverse_depth(model, read_image(Input(path, "")))
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"{path.stem}.npy"), expected, rtol=1e-4)


def test_only_so_many_images_wait_for_others_of_their_size(model, tmp_path):
    paths = [photo(tmp_path / f"{n}.png", 64, 64 * n) for n in range(1, 12)]
    settings = PredictConfig(batch_size=2, write=("npy",))
    outcomes = predict(settings, model, [str(path) for path in paths], str(tmp_path / "o"))
    first = next(outcomes).source.path
    # no two are of one size, so all of them would wait for ever
    assert first in paths[:8]
    assert len(list(outcomes)) == 10


def test_outcomes_come_in_the_order_of_the_inputs(model, tmp_path):
    """Whatever their sizes take to decode and to write; with bad ones and a video among them."""
    paths = [photo(tmp_path / f"{n}.png", 64 if n % 3 else 900, 64 if n % 3 else 900, n) for n in range(9)]
    paths[4].write_bytes(b"no image")
    paths.insert(6, video(tmp_path / "clip.mp4", 2, 32, 32))
    found = results(PredictConfig(), model, tmp_path / "out", *paths)
    assert list(found) == paths
    assert [path for path, problem in found.items() if problem] == [paths[4]]


def test_batches_that_a_gpu_computes_meanwhile_are_written_in_order_too(model, tmp_path, monkeypatch):
    """As on a GPU, a batch is not ready before the next one has been started."""
    started = []

    def launch_slowly(*arguments):
        started.append(launch(*arguments))
        pending, number = started[-1], len(started)
        done = SimpleNamespace(query=lambda: False, synchronize=lambda: waits.append((number, len(started))))
        return Launched(pending.maps, done)

    waits: list[tuple[int, int]] = []
    monkeypatch.setattr("pipelines.predict.launch", launch_slowly)
    paths = [photo(tmp_path / f"{n}.png", 64, 64, n) for n in range(7)]
    settings = PredictConfig(batch_size=2, write=("npy",))
    assert list(results(settings, model, tmp_path / "out", *paths)) == paths
    assert waits == [(1, 2), (2, 3), (3, 4), (4, 4)]
    for path in paths:
        expected = predict_inverse_depth(model, read_image(Input(path, "")))
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"{path.stem}.npy"), expected, rtol=1e-4)


def test_a_folder_that_cannot_be_written_to_ends_the_prediction(model, tmp_path):
    paths = [photo(tmp_path / f"{n}.png", 64, 64) for n in range(20)]
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(OSError, match="out"):
        results(PredictConfig(), model, tmp_path / "out", *paths)


def test_what_is_written_is_what_was_asked_for(model, tmp_path):
    path = photo(tmp_path / "in" / "a.png", 48, 64)
    settings = PredictConfig(write=("colour",), colours="gray", ply=60.0, attention=(1, 4), dtype="bfloat16")
    (outcome,) = predict(settings, model, [str(path)], str(tmp_path / "out"))
    assert outcome.written == ("a_colour.png", "a.ply", "a_attention.png")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(outcome.written)
    colour = cv2.imread(str(tmp_path / "out" / "a_colour.png"))
    assert colour is not None
    assert (colour[..., 0] == colour[..., 1]).all()
    assert (tmp_path / "out" / "a.ply").read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\n")


def test_attention_figures_have_a_row_a_token_and_a_column_a_layer(model, tmp_path):
    path = photo(tmp_path / "in" / "a.png", 64, 64)
    sizes = {}
    for layers, references in itertools.product([(1,), (1, 2, 3)], [((0.3, 0.4),), ((0.0, 0.0), (1.0, 1.0))]):
        settings = PredictConfig(write=(), attention=layers, references=references)
        list(predict(settings, model, [str(path)], str(tmp_path / "out")))
        figure = cv2.imread(str(tmp_path / "out" / "a_attention.png"))
        assert figure is not None
        sizes[len(layers), len(references)] = figure.shape[:2]
    assert sizes[3, 2][0] == sizes[1, 2][0] == 2 * sizes[1, 1][0]
    assert sizes[3, 1][1] == sizes[3, 2][1] == 2 * sizes[1, 1][1]


@pytest.mark.parametrize(("given", "dtype", "exact"), [
    ({}, torch.float32, False), ({"exact": True, "dtype": "bfloat16"}, torch.bfloat16, True),
])  # fmt: skip
def test_precision_is_as_asked_for(model, given, dtype, exact):
    predictor = Predictor(PredictConfig.model_validate(given), model)
    assert isinstance(predictor.model, dpt.FastDPT)
    assert (next(predictor.model.parameters()).dtype, predictor.model.exact) == (dtype, exact)


@pytest.mark.parametrize(("settings", "message"), [
    ({"colours": "infrared"}, "predict.colours: Matplotlib has no 'infrared'; some are: cividis, inferno"),
    ({"attention": (3, 9)}, "predict.attention: no layer 9; this backbone has 1 to 4"),
    ({"dtype": "float16", "device": "cpu"}, "predict.dtype: float16 is for GPUs"),
])  # fmt: skip
def test_what_does_not_fit_the_model_is_refused_first(model, tmp_path, settings, message):
    path = photo(tmp_path / "a.png", 32, 32)
    with pytest.raises(ConfigError, match=message):
        results(PredictConfig.model_validate(settings), model, tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def segmentation() -> dpt.DPT:
    torch.manual_seed(0)
    settings = {"task": "segmentation", "batch_norm": True, "classes": 3, "class_names": ("a", "b", "c")}
    return dpt.create_model("dpt_tiny", **settings).eval()


@pytest.mark.parametrize("inference", [{}, {"scales": (0.5, 1.0), "flip": True}])
@pytest.mark.parametrize("size", [(50, 70), (33, 200), (1, 1)])
def test_models_of_segmentation_give_classes(segmentation, tmp_path, size, inference):
    path = photo(tmp_path / "in" / "a.png", *size)
    settings = PredictConfig.model_validate({"inference": inference})
    (outcome,) = predict(settings, segmentation, [str(path)], str(tmp_path / "out"))
    assert outcome.problem is None
    classes = np.load(tmp_path / "out" / "a.npy")
    assert (classes.dtype, classes.shape) == (np.uint8, size)
    with Image.open(tmp_path / "out" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), classes)
    assert cv2.imread(str(tmp_path / "out" / "a_colour.png")).shape == (*size, 3)
    most = "abc"[np.bincount(classes.ravel()).argmax()]
    assert outcome.content.startswith(f"{most} {(classes == 'abc'.index(most)).mean():.0%}")
    image = read_image(Input(path, ""))
    scales = settings.inference.scales
    (expected,) = predict_classes(segmentation, [image], scales, settings.inference.flip)
    np.testing.assert_array_equal(classes, expected)


def test_what_is_for_another_task_is_refused(model, segmentation, tmp_path):
    path = photo(tmp_path / "a.png", 32, 32)
    with pytest.raises(BadModel, match="this is a segmentation model; a point cloud"):
        results(PredictConfig(ply=60.0), segmentation, tmp_path / "out", path)
    for inference in (InferenceSection(flip=True), InferenceSection(scales=(1.0,))):
        with pytest.raises(BadModel, match="this is a depth model; scales and flip"):
            results(PredictConfig(inference=inference), model, tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


def test_classes_are_laid_over_a_video(segmentation, tmp_path):
    clip = video(tmp_path / "clip.mp4", 3, 48, 64)
    assert results(PredictConfig(frames=True), segmentation, tmp_path / "out", clip) == {clip: None}
    painted = list(read_frames(tmp_path / "out" / "clip_colour.mp4"))
    assert [frame.image.shape for frame in painted] == [(48, 64, 3)] * 3
    assert len(list((tmp_path / "out" / "clip").glob("*.npy"))) == 3


def video(path: Path, frames: int, height: int, width: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    with writing_video(path) as write_frame:
        for number in range(frames):
            picture = np.broadcast_to(np.roll(ramp, 4 * number)[None, :, None], (height, width, 3))
            write_frame(Frame(picture, number, 1, Fraction(1, 10)))
    return path


def test_videos_are_painted_frame_by_frame(model, tmp_path):
    clip = video(tmp_path / "in" / "clip.mp4", 5, 46, 62)
    still = photo(tmp_path / "in" / "still.png", 32, 32)
    settings = PredictConfig(batch_size=2, frames=True, write=("npy",))
    assert results(settings, model, tmp_path / "out", tmp_path / "in") == {clip: None, still: None}
    painted = list(read_frames(tmp_path / "out" / "clip_colour.mp4"))
    assert [frame.image.shape for frame in painted] == [(46, 62, 3)] * 5
    there, here = ([f.time * f.time_base for f in frames] for frames in (painted, read_frames(clip)))
    assert there == here
    assert sorted(p.name for p in (tmp_path / "out" / "clip").iterdir()) == [f"{n:06}.npy" for n in range(5)]
    frame = list(read_frames(clip))[3].image
    expected = predict_inverse_depth(model, frame)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "clip" / "000003.npy"), expected, rtol=1e-4)


def test_a_video_that_breaks_off_is_named_and_leaves_no_half_video(model, tmp_path):
    broken, good = tmp_path / "in" / "broken.mp4", video(tmp_path / "in" / "good.mp4", 2, 32, 32)
    broken.write_bytes(b"no video")
    found = results(PredictConfig(), model, tmp_path / "out", tmp_path / "in")
    assert found[good] is None
    assert str(found[broken]).startswith(f"{broken} is not a readable video: ")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good_colour.mp4"]


def test_frames_before_a_break_are_painted_and_the_break_is_said(model, tmp_path):
    clip = encoded(tmp_path / "in" / "clip.mp4", [noise(seed) for seed in range(60)], options=FASTSTART)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (outcome,) = predict(PredictConfig(batch_size=4), model, [str(clip)], str(tmp_path / "out"))
    painted = list(read_frames(tmp_path / "out" / "clip_colour.mp4"))
    assert 20 < len(painted) < 40
    assert outcome.problem == f"{clip} breaks off after {len(painted)} of 60 frames"
    assert outcome.written == ("clip_colour.mp4",)


@pytest.fixture
def broken(model) -> dpt.DPT:
    """A model with one weight that is NaN."""
    other = dpt.create_model("dpt_tiny").eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.head.conv2.weight[0, 0, 0, 0] = torch.nan
    return other


def test_a_prediction_that_is_not_finite_is_an_error_that_names_the_image(broken, segmentation, tmp_path):
    path, clip = photo(tmp_path / "a.png", 32, 32), video(tmp_path / "clip.mp4", 2, 32, 32)
    found = results(PredictConfig(batch_size=2), broken, tmp_path / "out", path, clip)
    for source, where in ((path, path), (clip, f"{clip}, frame 0")):
        assert str(found[source]).startswith(
            f"{where}: the model predicts no finite number for 1024 of 1024 "
        )
    assert not list((tmp_path / "out").rglob("*.*"))
    with pytest.raises(BadPrediction, match=r"a\.png: the model predicts no finite number"):
        predict_one(PredictConfig(write=("npy",)), broken, [str(path)])
    labels = dpt.DPT(segmentation.config).eval()
    with torch.no_grad():
        labels.head.conv2.weight[0] = torch.inf
    for inference in (InferenceSection(), InferenceSection(scales=(1.0,))):
        found = results(PredictConfig(inference=inference), labels, tmp_path / "out", path)
        assert "no finite number" in str(found[path])


def test_metres_are_said_with_each_prediction_and_at_the_end(model, tmp_path):
    metric = dpt.create_model("dpt_tiny", scale=0.3, shift=0.2, invert=True).eval()
    metric.load_state_dict(model.state_dict())
    dpt.save_model(metric, tmp_path / "model")
    path = photo(tmp_path / "a.png", 32, 32)
    printed = said(
        "predict", path, "--model", tmp_path / "model", "--out", tmp_path / "out", "--write", "npy"
    )
    depth = np.load(tmp_path / "out" / "a.npy")
    assert f"a.npy ({depth.min():.3g} to {depth.max():.3g} m)" in printed
    assert "1 of 1 predicted: depth in metres" in printed
    dpt.save_model(model, tmp_path / "relative")
    printed = said("predict", path, "--model", tmp_path / "relative", "--out", tmp_path / "out")
    assert "1 of 1 predicted: inverse depth up to an unknown scale and shift, larger is nearer" in printed


def test_results_beside_the_inputs_are_not_predicted_again(model, tmp_path):
    """The second run takes what the first one took; a photo of the name of a result is never overwritten."""
    photo(tmp_path / "a.jpg", 32, 40)
    video(tmp_path / "clip.mp4", 2, 32, 32)
    settings = PredictConfig(attention=(1,))
    lines: list[str] = []
    for _ in range(2):
        found = [
            outcome.source.path.name
            for outcome in predict(settings, model, [str(tmp_path)], str(tmp_path), lines.append)
        ]
        assert sorted(found) == ["a.jpg", "clip.mp4"]
    assert "4 written by dpt predict (a.png, a_attention.png, a_colour.png, …)" in lines[-1]
    photo(tmp_path / "a.png", 32, 40)
    with pytest.raises(AmbiguousOutputs, match=r"a\.png is an input and would be overwritten"):
        list(predict(settings, model, [str(tmp_path)], str(tmp_path)))


@pytest.mark.parametrize("suffix", ["gif", "avif", "jfif", "webp", "tiff", "ppm"])
def test_whatever_pillow_reads_is_predicted(model, tmp_path, suffix):
    picture = Image.fromarray(np.tile(np.linspace(0, 255, 48, dtype=np.uint8), (32, 1))).convert("RGB")
    path = tmp_path / "in" / f"a.{suffix}"
    path.parent.mkdir()
    picture.save(path, "JPEG" if suffix == "jfif" else None)
    with Image.open(path) as again:
        expected = np.asarray(again.convert("RGB")).astype(int)
    assert np.abs(read_image(Input(path, "")).astype(int) - expected).max() <= 4
    assert results(PredictConfig(), model, tmp_path / "out", tmp_path / "in") == {path: None}
    assert np.load(tmp_path / "out" / "a.npy").shape == (32, 48)


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp"])
def test_of_several_pictures_in_a_file_the_first_is_predicted_and_it_is_said(model, tmp_path, suffix):
    frames = [Image.new("RGB", (40, 32), (level, 0, 0)) for level in (250, 20, 90)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert read_image(Input(path, ""))[5, 5, 0] > 200
    (outcome,) = predict(PredictConfig(), model, [str(path)], str(tmp_path / "out"))
    assert outcome.content == "the first of its 3 pictures"


def test_an_image_is_turned_by_its_exif_orientation_whoever_decodes_it(tmp_path):
    shown = np.zeros((48, 64, 3), np.uint8)
    shown[:24, :20] = 255
    for suffix in ("jpg", "avif", "webp", "png", "tiff"):
        exif = Image.Exif()
        exif[0x0112] = 6  # stored turned to the left
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(np.ascontiguousarray(np.rot90(shown))).save(path, exif=exif)
        image = read_image(Input(path, ""))
        assert image.shape == shown.shape
        assert np.corrcoef(image.ravel(), shown.ravel())[0, 1] > 0.95, suffix


def test_one_image_becomes_one_file_of_bytes(model, tmp_path):
    path = photo(tmp_path / "a.png", 40, 60)
    data = predict_one(PredictConfig(write=("colour",)), model, [str(path)])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.shape == (40, 60, 3)
    other = photo(tmp_path / "b.png", 40, 60)
    for settings, paths in (
        (PredictConfig(), [path]),
        (PredictConfig(write=("npy",)), [path, other]),
        (PredictConfig(write=("npy",)), [video(tmp_path / "clip.mp4", 1, 32, 32)]),
    ):
        with pytest.raises(ValueError, match="takes one image, and one of"):
            predict_one(settings, model, [str(path) for path in paths])


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red)
    np.testing.assert_array_equal(read_image(Input(tmp_path / "red.png", ""))[0, 0], [255, 0, 0])


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_of_32_bits_are_no_photo(mode, tmp_path):
    """Pillow would clip a depth map to 0 … 255."""
    Image.new(mode, (40, 30), 300).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match=r"a\.tif is not .*expected integers of 8 or 16 bits"):
        read_image(Input(tmp_path / "a.tif", "a"))


def test_a_strip_is_a_bad_image(tmp_path):
    with pytest.raises(BadImage, match=r"a\.png: image of 2000x10 is a strip"):
        read_image(Input(photo(tmp_path / "a.png", 10, 2000), ""))


def test_an_image_with_absurd_dimensions_is_a_bad_image(tmp_path):
    data = bytearray(photo(tmp_path / "a.png", 4, 4).read_bytes())
    data[16:24] = b"\x00\x0f\xff\xff" * 2  # width and height of the header
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadImage, match=r"a\.png is not a readable image"):
        read_image(Input(tmp_path / "a.png", ""))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: cuda is asked for"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


def test_a_file_that_the_system_does_not_read_is_named():
    with pytest.raises(BadImage, match=r"^/proc/self/mem cannot be read: Input/output error$"):
        read_image(Input(Path("/proc/self/mem"), "mem"))
