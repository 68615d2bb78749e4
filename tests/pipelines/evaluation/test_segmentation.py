"""Evaluation of segmentation models against arithmetic written anew, from the raw files on."""

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.schema import decode_image
from datasets_prep.settings import IngestSettings
from datasets_prep.synthetic import write_dataset, write_traps
from dpt.metrics import SegmentationCounts
from dpt.predict.classes import PAPER_SCALES, predict_classes
from pipelines.config import PAPER_INFERENCE, ConfigError, EvaluateConfig, InferenceSection
from pipelines.evaluation.segmentation import (
    MissingSamples,
    count_share,
    evaluate_segmentation,
    left_out,
)
from pipelines.evaluation.tables import class_csv, class_figure, extremes_table, paper_table, summary_table
from pipelines.tracking.model_reference import BadModel
from tests.support import shards
from tests.support.labelled_sets import prepare, tiny
from tests.support.paths import SAMPLES

REAL = SAMPLES / "ade20k"
WHOLE = InferenceSection()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedDataset]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: prepare(name, folder / name) for name in ("ade20k", "pascal_context_59")}


def model() -> dpt.DPT:
    """Untrained, but of varied predictions: the last layer is drawn large."""
    network = tiny().eval()
    torch.nn.init.normal_(network.head.conv2.weight, std=1.0)
    return network


def by_hand(predictions: list[np.ndarray], labels: list[np.ndarray], classes: int) -> dict[str, float]:
    """pixAcc and mIoU as the definitions say, class by class over all pixels at once."""
    p, t = (np.concatenate([one.ravel() for one in many]).astype(int) for many in (predictions, labels))
    p, t = p[t != 255], t[t != 255]
    ious = []
    for k in range(classes):
        union = ((p == k) | (t == k)).sum()
        if union:
            ious.append(((p == k) & (t == k)).sum() / union)
    return {"pix_acc": float((p == t).mean()), "miou": float(np.mean(ious)), "classes": len(ious)}


def raw_photos(raw: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photos and labels of ADE20K's validation set; labels are read without our readers."""
    images, labels = [], []
    for path in sorted(raw.rglob("images/validation/*.jpg")):
        images.append(decode_image(path.read_bytes()))
        mask = str(path).replace("/images/", "/annotations/").replace(".jpg", ".png")
        stored = cv2.imread(mask, cv2.IMREAD_UNCHANGED).astype(int)
        labels.append(np.where(stored == 0, 255, stored - 1).astype(np.uint8))
    return images, labels


@pytest.mark.heavy
@pytest.mark.parametrize("inference", [WHOLE, InferenceSection(scales=(0.75, 1.25), flip=True)])
def test_figures_are_those_of_arithmetic_by_hand(sets, inference):
    dataset, network = sets["ade20k"], model()
    found = count_share(network, dataset, 0, 1, "val", inference).result()
    images, labels = raw_photos(Path(dataset.folder.path).parents[2] / "raw")
    assert found["images"] == len(images) == 3
    predictions = [predict_classes(network, [one], inference.scales, inference.flip)[0] for one in images]
    expected = by_hand(predictions, labels, 150)
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, rel=1e-12), metric
    assert found["pixels"] == sum(int((one != 255).sum()) for one in labels)
    p, t = (torch.cat([torch.from_numpy(m.ravel()).long() for m in many]) for many in (predictions, labels))
    accuracy = MulticlassAccuracy(150, average="micro", ignore_index=255)(p, t)
    assert found["pix_acc"] == pytest.approx(float(accuracy), rel=1e-6)
    theirs = MulticlassJaccardIndex(150, average="none", ignore_index=255)(p, t)
    occurs = torch.bincount(torch.cat([p[t != 255], t[t != 255]]), minlength=150) > 0
    assert found["miou"] == pytest.approx(float(theirs[occurs].mean()), rel=1e-6)


def test_workers_together_count_every_pixel_once(sets, ray_session):
    network = model()
    whole = count_share(network, sets["ade20k"], 0, 1, "val", WHOLE)
    for workers in (1, 2):
        config = EvaluateConfig(workers=workers, inference=WHOLE, device="cpu")
        (counts,) = evaluate_segmentation(config, network, [sets["ade20k"]]).values()
        assert torch.equal(counts.confusion, whole.confusion)
        assert counts.images == whole.images == 3


@pytest.mark.heavy
@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples beside the repository")
def test_the_real_sample(tmp_path):
    dataset, network = prepare("ade20k", tmp_path, raw=REAL), model()
    images, labels = raw_photos(REAL)
    assert len(images) == 1
    predictions = predict_classes(network, images)
    found = count_share(network, dataset, 0, 1, "val", WHOLE).result()
    for metric, value in by_hand(predictions, labels, 150).items():
        assert found[metric] == pytest.approx(value, rel=1e-12)
    # A prediction that is right but for a band is as right as the band is narrow.
    almost = labels[0].copy()
    almost[:20] = 7
    counts = SegmentationCounts(150)
    counts.update(torch.from_numpy(almost)[None], torch.from_numpy(labels[0])[None])
    expected = by_hand([almost], labels, 150)
    assert counts.result()["miou"] == pytest.approx(expected["miou"], rel=1e-12)
    assert 0.5 < counts.result()["pix_acc"] == pytest.approx(expected["pix_acc"], rel=1e-12)


def test_wrong_models_are_refused(sets):
    config = EvaluateConfig(inference=WHOLE, device="cpu")
    with pytest.raises(BadModel, match="this is a depth model; ade20k needs a segmentation model"):
        evaluate_segmentation(config, dpt.create_model("dpt_tiny"), [sets["ade20k"]])
    with pytest.raises(BadModel, match=r"predicts 150 classes .*wall.*, not the 59 of pascal_context_59"):
        evaluate_segmentation(config, model(), [sets["pascal_context_59"]])
    with pytest.raises(NotADataset, match="no split 'test'"):
        evaluate_segmentation(EvaluateConfig(split="test"), model(), [sets["ade20k"]])
    with pytest.raises(ConfigError, match="side: windows have the size that the model was trained at"):
        evaluate_segmentation(EvaluateConfig(side=96), model(), [sets["ade20k"]])


def test_missing_samples_are_no_smaller_average(ray_session, tmp_path):
    raw = tmp_path / "raw"
    write_dataset("ade20k", raw, scenes=4, height=60, width=80)
    write_traps("ade20k", raw, height=60, width=80)
    lost = next(raw.rglob("annotations/validation/*.png"))
    lost.write_bytes(lost.read_bytes()[:100])
    write_dataset("ade20k", tmp_path / "more", scenes=8, height=60, width=80)
    for path in (tmp_path / "more").rglob("*00000008.*"):
        path.rename(raw / path.relative_to(tmp_path / "more"))
    plan = plan_ingest("ade20k", str(raw), IngestSettings(resize="none", samples_per_shard=4))
    dataset = shards.prepare(plan, str(tmp_path / "shards"))
    (entry,) = left_out(dataset, "val")  # of the training split there are more
    assert "ADE_val_00000004" in entry["source_path"]
    strict = EvaluateConfig(inference=WHOLE, device="cpu")
    with pytest.raises(MissingSamples, match=r"ade20k: 1 samples were left out .*ADE_val_00000004\.jpg: "):
        evaluate_segmentation(strict, model(), [dataset])
    lenient = strict.model_copy(update={"allow_missing": True})
    counts = evaluate_segmentation(lenient, model(), [dataset])
    assert counts["ade20k"].images == 1
    assert "1 of 2" in shown(summary_table(counts, {"ade20k": 1}))


def shown(table: object) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def counted(dataset: str, classes: int) -> SegmentationCounts:
    counts = SegmentationCounts(classes)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes - 3, (2, 90, 90), generator=generator)
    right = torch.rand(labels.shape, generator=generator) < labels / classes
    counts.update(torch.where(right, labels, (labels + 1) % (classes - 3)), labels)
    return counts


@pytest.mark.parametrize(("dataset", "classes"), [("ade20k", 150), ("pascal_context_59", 59)])
def test_every_class_is_reported(dataset, classes):
    counts = counted(dataset, classes)
    rows = list(csv.DictReader(io.StringIO(class_csv(dataset, counts))))
    assert len(rows) == classes
    assert [row["iou"] for row in rows[-3:]] == ["", "", ""]  # they never occur
    values = [float(row["iou"]) for row in rows[:-3]]
    assert np.mean(values) == pytest.approx(counts.result()["miou"], abs=1e-6)
    assert sum(int(row["labelled_pixels"]) for row in rows) == 2 * 90 * 90
    assert sum(int(row["right_pixels"]) for row in rows) == counts.confusion.diagonal().sum()
    figure = class_figure(dataset, counts)
    assert (figure.dtype, figure.shape[2]) == (np.uint8, 3)
    assert figure.shape[1] > 10 * classes
    text = shown(extremes_table(dataset, counts))
    order = sorted(rows[:-3], key=lambda row: -float(row["iou"]))
    for row in (*order[:5], *order[-5:]):
        assert f"{row['name']} " in text


def test_the_papers_rows_stand_beside_ours():
    counts = counted("ade20k", 150)
    text = shown(paper_table("ade20k", counts))
    assert "Table 4" in text
    (large,) = (line for line in text.splitlines() if "DPT-Large" in line)
    assert "82.70" in large
    assert "47.63" in large
    (ours,) = (line for line in text.splitlines() if "ours, on 2 images" in line)
    result = counts.result()
    assert f"{100 * result['pix_acc']:.2f}" in ours
    assert f"{100 * result['miou']:.2f}" in ours
    assert "60.46" in shown(paper_table("pascal_context_59", counted("pascal_context_59", 59)))
    assert paper_table("pascal_context_60", counted("pascal_context_60", 60)) is None


def test_the_papers_scales():
    assert PAPER_INFERENCE.scales == PAPER_SCALES == EvaluateConfig().inference.scales
    assert EvaluateConfig().inference.flip
