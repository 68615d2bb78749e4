"""Zero-shot evaluation end to end on generated and real files, against the protocol in plain NumPy."""

import copy
import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import dpt
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.sources import SOURCES
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import write_dataset
from pipelines.config import ZeroShotConfig
from pipelines.evaluation.sets import ZERO_SHOT
from pipelines.tracking.model_reference import BadModel
from pipelines.zero_shot.protocol import measure_depth, measure_order, prepare
from pipelines.zero_shot.report import make_report, markdown, per_image
from pipelines.zero_shot.run import BadPrediction, UnreadableImages, draw_worst, evaluate_zero_shot
from pipelines.zero_shot.sets import find_sets
from tests.support.paths import SAMPLES
from tests.support.zero_shot_reference import depth_errors, disagrees, input_size, network_pixels

pytestmark = pytest.mark.heavy

SIDE = 64
SOURCE_OF = {"diw": "diw", "eth3d": "eth3d", "sintel": "sintel", "kitti": "kitti_161"}
SOURCE_OF |= {"nyu": "nyuv2_labelled", "tum": "tum"}
SIDE_OF = {name: "shorter" if name == "kitti" else "longer" for name in SOURCE_OF}
CAPS = {"eth3d": 72, "sintel": 72, "kitti": 80, "nyu": 10, "tum": 10}
REAL = SAMPLES
EXACT = {"rel": 1e-9, "abs": 1e-12}
END_TO_END = {"rel": 1e-6, "abs": 1e-9}
"""With the network in float64: in float32 its last bits depend on threads and on where memory lies, and what
a random one predicts varies so little that alignment enlarges them to 1e-5."""
BEYOND = "rendered_0/frame_0009"


@pytest.fixture(scope="module")
def network() -> dpt.DPT:
    torch.manual_seed(0)
    model = dpt.create_model("dpt_tiny").eval()
    # As it is made, its predictions vary by half a percent, and alignment makes rounding 200 times as large.
    with torch.no_grad():
        model.head.conv3.weight.normal_(std=10.0)
    return model


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six sets in miniature; Sintel with a frame that lies wholly beyond the cap."""
    root = tmp_path_factory.mktemp("raw")
    for name, source in SOURCE_OF.items():
        write_dataset(source, root / name, scenes=4, height=72, width=96)
    sky = np.full((72, 96), 500, np.float32)
    (root / "sintel/training/depth" / f"{BEYOND}.dpt").write_bytes(maps.encode_sintel_depth(sky))
    shutil.copy(
        root / "sintel/training/final/rendered_0/frame_0001.png", root / f"sintel/training/final/{BEYOND}.png"
    )
    return root


@pytest.fixture(scope="module")
def results(ray_session, network, raw):
    found = find_sets(list(ZERO_SHOT), [str(raw)], {})
    done = []
    settings = ZeroShotConfig(batch_size=1, precision="float64")
    outcome = evaluate_zero_shot(settings, network, found, on_progress=done.append)
    assert sum(done) == sum(len(entry.samples) for entry in found)
    return {result.name: result for result in outcome}


def predict(network, image, rule):
    """What the network says, computed in float64."""
    size = input_size(*image.shape[:2], rule, SIDE)
    pixels = network_pixels(image, size, network.mean, network.std)
    with torch.inference_mode():
        batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
        return copy.deepcopy(network).double()(batch.double())[0].numpy()


def expected(network, name, source, folder, sample):
    """What NumPy makes of a sample."""
    raw = SOURCES[source].read(Folder(folder), sample)
    image = formats.decode_rgb(raw.image)
    return reference_of(name, predict(network, image, SIDE_OF[name]), image.shape[:2], raw)


def reference_of(name, prediction, size, raw):
    """What a prediction is worth, by NumPy; None where nothing can be counted."""
    if name == "diw":
        a, b = (raw.y_a, raw.x_a), (raw.y_b, raw.x_b)
        return {"whdr": disagrees(prediction, size, a, b, raw.a_is_farther)}
    valid = raw.valid.copy()
    if name == "nyu":
        valid[:8] = valid[-8:] = valid[:, :8] = valid[:, -8:] = False
    return depth_errors(prediction, raw.target, valid, CAPS[name])


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_every_image_has_the_values_that_plain_numpy_gives(name, results, network, raw):
    [found] = find_sets([name], [str(raw)], {})
    assert found.source == SOURCE_OF[name]
    rows = results[name].table.to_pylist()
    assert len(rows) == len(found.samples) >= 2
    values = []
    for row, sample in zip(rows, found.samples, strict=True):
        assert row["sample_id"] == sample.sample_id
        reference = expected(network, name, found.source, raw / name, sample)
        if reference is None:
            assert row["pixels"] == 0
            assert math.isnan(row["abs_rel"])
            continue
        for key, value in reference.items():
            assert row[key] == pytest.approx(value, **END_TO_END), (sample.sample_id, key)
        metric = {"diw": "whdr", "eth3d": "abs_rel", "sintel": "abs_rel"}.get(name, "delta1_error")
        values.append(reference[metric])
    assert results[name].mean == pytest.approx(np.mean(values), rel=1e-6)


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_a_given_prediction_is_worth_exactly_what_plain_numpy_says(name, raw):
    [found] = find_sets([name], [str(raw)], {})
    description, size = found.description, (SIDE, found.description.rule, 32)
    for seed, sample in enumerate(found.samples):
        sample_raw = SOURCES[found.source].read(Folder(found.raw), sample)
        ready = prepare(sample_raw, size, description.border)
        assert ready.pixels.shape[:2] == input_size(*ready.image.shape[:2], SIDE_OF[name], SIDE)
        prediction = np.random.default_rng(seed).uniform(0, 9, ready.pixels.shape[:2]).astype(np.float32)
        reference = reference_of(name, prediction, ready.image.shape[:2], sample_raw)
        given = torch.from_numpy(prediction)
        if name == "diw":
            measured = measure_order(given, ready.points, ready.a_is_farther, ready.image.shape[:2])
        else:
            measured = measure_depth(given, ready.depth, description.cap)
        if reference is None:
            assert measured.pixels == 0
            continue
        got = measured.metrics | {"scale": measured.scale, "shift": measured.shift, "pixels": measured.pixels}
        for key, value in reference.items():
            assert got[key] == pytest.approx(value, **EXACT), (sample.sample_id, key)


def test_a_frame_beyond_the_cap_is_counted_and_named(results):
    sintel = results["sintel"]
    assert (sintel.beyond_cap, len(sintel.values)) == ([BEYOND], sintel.table.num_rows - 1)
    assert results["eth3d"].beyond_cap == []


def test_workers_and_batches_change_nothing(results, network, raw):
    names = ["diw", "sintel", "kitti"]
    settings = ZeroShotConfig(batch_size=5, workers=2, precision="float64")
    for result in evaluate_zero_shot(settings, network, find_sets(names, [str(raw)], {})):
        before = results[result.name].table
        assert result.table.column("sample_id").equals(before.column("sample_id"))
        for metric in ("whdr", "abs_rel", "rmse", "scale", "pixels"):
            ours, first = (t.column(metric).to_numpy().astype(float) for t in (result.table, before))
            np.testing.assert_allclose(ours, first, rtol=1e-6, atol=1e-9)


def test_a_model_that_predicts_depth_is_aligned_in_inverse_depth(results, network, raw):
    inverted = dpt.create_model("dpt_tiny", invert=True).eval()
    inverted.load_state_dict(network.state_dict())
    [result] = evaluate_zero_shot(ZeroShotConfig(), inverted, find_sets(["eth3d"], [str(raw)], {}))
    np.testing.assert_allclose(result.values, results["eth3d"].values, rtol=1e-4)


def test_predictions_that_are_not_finite_end_the_evaluation(ray_session, network, raw):
    broken = dpt.DPT(network.config).eval()
    broken.load_state_dict(network.state_dict())
    with torch.no_grad():
        next(broken.head.parameters())[:] = math.nan
    with pytest.raises(BadPrediction, match=r"^tum: the prediction of \S+ has values that are not finite"):
        evaluate_zero_shot(ZeroShotConfig(), broken, find_sets(["tum"], [str(raw)], {}))


def test_a_model_of_another_task_is_refused(raw):
    segmentation = dpt.create_model("dpt_tiny", task="segmentation", classes=3)
    with pytest.raises(BadModel, match="segmentation model; zero-shot evaluation takes models of depth"):
        evaluate_zero_shot(ZeroShotConfig(), segmentation, find_sets(["diw"], [str(raw)], {}))


def test_images_that_cannot_be_used_are_never_left_out_silently(ray_session, network, tmp_path):
    write_dataset("eth3d", tmp_path / "eth3d", scenes=1, height=48, width=64, traps=True)
    found = find_sets(["eth3d"], [str(tmp_path)], {})
    with pytest.raises(UnreadableImages) as caught:
        evaluate_zero_shot(ZeroShotConfig(), network, found)
    message = str(caught.value)
    assert message.startswith(f"eth3d: 3 of {len(found[0].samples)} images cannot be used: traps/DSC_0001: ")
    assert "ground truth is empty: no pixel is valid" in message
    [result] = evaluate_zero_shot(ZeroShotConfig(), network, found, allow_missing=True)
    assert [line.split(":")[0] for line in result.unreadable] == [f"traps/DSC_000{n}" for n in (1, 2, 3)]
    assert len(result.values) == len(found[0].samples) - 3
    assert f"{len(result.values)} of 454" in markdown(make_report("ours", [result], 10, 0))
    problems = per_image([result]).column("problem").drop_null()
    assert len(problems) == 3


def test_a_set_without_any_valid_ground_truth_is_an_error(ray_session, network, tmp_path):
    write_dataset("sintel", tmp_path / "sintel", scenes=1, height=48, width=64)
    far = maps.encode_sintel_depth(np.full((48, 64), 500, np.float32))
    for path in (tmp_path / "sintel").rglob("*.dpt"):
        path.write_bytes(far)
    with pytest.raises(UnreadableImages, match="sintel: no image has valid ground truth nearer than the cap"):
        evaluate_zero_shot(ZeroShotConfig(), network, find_sets(["sintel"], [str(tmp_path)], {}))


def test_the_worst_images_are_drawn_worst_first(results, network, raw):
    names = ["diw", "kitti"]
    found = find_sets(names, [str(raw)], {})
    drawn = draw_worst(ZeroShotConfig(worst=2), network, found, [results[name] for name in names])
    titles = [title for title, _ in drawn["kitti"]]
    worst = sorted(results["kitti"].values, reverse=True)[:2]
    assert [float(title.split()[-1]) for title in titles] == pytest.approx(worst, abs=1e-4)
    for name, pictures in (("diw", 2), ("kitti", 4)):
        strip = formats.decode_rgb(drawn[name][0][1])
        assert strip.shape == (72, 96 * pictures, 3)
        assert all(part.std() > 0 for part in np.split(strip, pictures, axis=1))


def real_sets(folder):
    """The real KITTI, NYUv2 and TUM frames in their layouts."""
    drive = "2011_09_26_drive_0002_sync"
    frame = f"image_02/{{}}{5:010d}.png"
    places = {
        f"kitti/2011_09_26/{drive}/{frame.format('data/')}": "kitti/rgb/0000000005.png",
        f"kitti/val/{drive}/proj_depth/groundtruth/{frame.format('')}": "kitti/depth/0000000005.png",
        "nyu/test/office_0001/rgb_00000.jpg": "nyuv2_sync/rgb/rgb_00000.jpg",
        "nyu/test/office_0001/sync_depth_00000.png": "nyuv2_sync/depth/sync_depth_00000.png",
        "tum/rgbd_dataset_x/rgb/1.000000.png": "tum_rgbd/rgb/1.png",
        "tum/rgbd_dataset_x/depth/1.010000.png": "tum_rgbd/depth/1.png",
    }
    for place, file in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / file, folder / place)
    (folder / "kitti/eigen_test_files.txt").write_text(f"2011_09_26/{drive} 5 l\n")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples beside the repository")
def test_real_frames_have_the_values_that_plain_numpy_gives(ray_session, network, tmp_path):
    real_sets(tmp_path)
    found = find_sets(["kitti", "nyu", "tum"], [str(tmp_path)], {})
    assert [entry.source for entry in found] == ["kitti_161", "nyuv2", "tum"]
    settings = ZeroShotConfig(precision="float64")
    for entry, result in zip(found, evaluate_zero_shot(settings, network, found), strict=True):
        [row] = result.table.to_pylist()
        reference = expected(network, entry.name, entry.source, entry.raw, entry.samples[0])
        assert reference["pixels"] > 10_000
        for key, value in reference.items():
            assert row[key] == pytest.approx(value, **END_TO_END), (entry.name, key)


def test_sides_are_the_papers(network):
    assert input_size(480, 640, "longer", 384) == (288, 384)
    assert input_size(375, 1242, "shorter", 384) == (384, 1280)
    assert {name for name, entry in ZERO_SHOT.items() if entry.rule == "lower_bound"} == {"kitti"}
    assert dataclasses.asdict(ZERO_SHOT["nyu"])["border"] == 8
