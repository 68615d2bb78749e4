"""`dpt demo`: every step from raw data to a report on rendered scenes, in a few minutes on two cores.

Every step calls what the command of that name calls. The datasets are rendered in their original folder
layouts and file formats, so that the same readers are used as for the real ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote

import ray
import torch
from rich.console import Console
from rich.table import Table

import dpt
from datasets_prep.formats.pictures import encode_png
from datasets_prep.ingest.run import ingest_all
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.inspect.verify import draw_contact_sheet
from datasets_prep.manifest import open_dataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.stereo.run import plan_stereo, read_report, run_stereo
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import VIEWS, write_lists, write_scene
from dpt.predict.colours import colourise
from pipelines.cluster.session import connect
from pipelines.config import DemoConfig, Experiment
from pipelines.config_files import load_experiment
from pipelines.evaluate import evaluate
from pipelines.loading.batches import evaluation_batches
from pipelines.predict import Predictor
from pipelines.publish import publish
from pipelines.report.model_page import write_model_report
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_keys import MEAN, with_mean
from pipelines.tracking.model_reference import load_model
from pipelines.train import TrainResult, train
from pipelines.training.start import build_model

TRAINED = ("redweb", "hrwsi", "blendedmvs", "tartanair")
"""Trained on: the paper's three curated datasets, and a metric one with sky."""

OTHERS = ("diml", "megadepth", "apolloscape", "irs")
"""Only prepared: a few images each."""

STEREO = ("movies", "wsvd")
"""Stereo videos, whose ground truth is computed before they are prepared."""

DATASETS = (*TRAINED, *OTHERS, *STEREO)
"""MIX 6."""

Results = dict[str, dict[str, float]]


class Demo:
    """The steps of the demo in the folder `out`, which print a line each to the `console`, with the time.

    `experiment` has the configs of all jobs.
    """

    def __init__(self, out: Path, experiment: Experiment, console: Console) -> None:
        self._out, self._experiment, self._console = out, experiment, console
        self._start = time.perf_counter()

    def say(self, line: str) -> None:
        """Print the time since the start, and a `line`."""
        seconds = time.perf_counter() - self._start
        self._console.print(f"[dim]{seconds:5.0f} s[/dim]  {line}", highlight=False, soft_wrap=True)

    def generate(self) -> None:
        """Render the raw datasets in Ray tasks."""
        settings, videos = self._experiment.demo, ", ".join(STEREO)
        self.say(f"generate: {settings.images} images each in the layouts of {', '.join(TRAINED)}")
        self.say(f"generate: {settings.others} scenes each of {', '.join(OTHERS)}, videos of {videos}")
        cores = int(ray.cluster_resources()["CPU"])
        tasks = []
        for name in DATASETS:
            images = settings.images if name in TRAINED else settings.others
            root, scenes = self._raw(name), scenes_for(name, images)
            parts = (range(first, scenes, cores) for first in range(cores))
            tasks += [_render.remote(name, root, part, settings) for part in parts]
            write_lists(name, root, scenes, settings.seed)
        ray.get(tasks)

    def stereo(self) -> None:
        """Compute the ground truth of the stereo videos."""
        for name in STEREO:
            raw, out = self._raw(name), str(self._computed(name))
            lists = str(raw / "lists") if name == "wsvd" else None
            plan = plan_stereo(name, str(raw / "videos"), self._experiment.stereo, lists)
            deque(run_stereo(plan, out), maxlen=0)
            report = read_report(out)
            left_out = sum(report.rejected.values())
            self.say(f"stereo {name}: disparity of {report.frames} frames, {left_out} left out")

    def prepare(self) -> list[str]:
        """Prepare all datasets; returns those to train on."""
        shards = str(self._out / "shards")
        for name in DATASETS:
            raw = self._computed(name) if name in STEREO else self._raw(name)
            prepared = ingest_all(plan_ingest(name, str(raw), self._experiment.prepare), shards)
            counts = ", ".join(f"{count} {split}" for split, count in prepared.manifest.samples.items())
            self.say(f"prepare {name}: {counts}, {prepared.manifest.quarantined} quarantined")
            draw_contact_sheet(prepared, self.shown(f"shards_{name}.png"), samples=6)
        return [f"{shards}/{name}" for name in TRAINED]

    def evaluate(self, model: Path, data: Sequence[str], what: str) -> Results:
        """Evaluate a `model`, called `what` in the output, on the held-out scenes of `data`."""
        results = evaluate(self._experiment.evaluate, model, data)
        self.say(f"evaluate {what}: AbsRel {with_mean(results)[MEAN]['abs_rel']:.4f} on held-out scenes")
        return results

    def untrained(self, data: Sequence[str]) -> Results:
        """Evaluate the initial model, with the weights that training starts from, on `data`."""
        torch.manual_seed(self._experiment.train.seed)
        model = build_model(self._experiment.train.model, self._experiment.train.crop_size)
        with tempfile.TemporaryDirectory(prefix="dpt-demo-") as folder:
            dpt.save_model(model, Path(folder))
            return self.evaluate(Path(folder), data, "untrained")

    def train(self, data: Sequence[str]) -> TrainResult:
        """Train on `data`, without the held-out scenes."""
        name = f"demo-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
        config = self._experiment.train
        self.say(f"train {config.model.name}: run {name}, {config.steps} steps of {config.batch_size}")
        return train(config, data, name, str(self._out / "runs"), show=lambda line: self.say(f"  {line}"))

    def predict(self, uri: str, data: Sequence[str]) -> Path:
        """Predict a held-out image of `data` with the registered model `uri`; returns the picture's path."""
        dataset = open_dataset(data[-1])
        split = self._experiment.evaluate.split
        sample = next(evaluation_batches(dataset, split, 0, rank=0, world_size=1, batch_size=1))
        image, truth = sample.images[0].numpy(), sample.target[0].float().numpy()
        predictor = Predictor(self._experiment.predict, load_model(uri))
        [prediction] = predictor([image])
        predictor.write(Folder(self._out / "prediction"), "held_out", image, prediction)
        sheet = contact_sheet(
            [[image, colourise(truth), colourise(prediction)]],
            [f"{dataset.name}: {sample.sample_ids[0]}  (image, ground truth, prediction)"],
            height=288,
        )
        path = self.shown("prediction.png")
        path.write_bytes(encode_png(sheet))
        self.say(f"predict a held-out image with {uri}")
        return path

    def report(self, uri: str, data: Sequence[str]) -> Path:
        """Write the page of the registered model at `uri` with predictions on `data`; returns its path."""
        path = write_model_report(uri, self._out / "model_report", data, images=2)
        self.say(f"report of {uri}: its measurements, predictions with their errors, attention, resolution")
        return path

    def _raw(self, name: str) -> Path:
        return self._out / "raw" / name

    def _computed(self, name: str) -> Path:
        return self._out / "raw" / f"{name}_computed"

    def shown(self, name: str) -> Path:
        """Path of the picture `name`."""
        self._out.mkdir(parents=True, exist_ok=True)
        return self._out / name


@ray.remote(num_cpus=1)
def _render(name: str, root: Path, scenes: range, settings: DemoConfig) -> None:
    for index in scenes:
        write_scene(name, root, index, settings.seed, settings.height, settings.width)


def scenes_for(name: str, images: int) -> int:
    """Number of scenes of dataset `name` that give about `images` images."""
    return max(2, images // (VIEWS if name in ("blendedmvs", "tartanair") else 1))


def run_demo(out: Path, config: str, console: Console) -> None:
    """Run the demo in folder `out` with a `config` file, and print its results to `console`."""
    demo = Demo(out.absolute(), load_experiment(config), console)
    connect()
    tracking.connect()
    demo.say(f"Ray with {ray.cluster_resources()['CPU']:.0f} cores, MLflow in {tracking.store_name()}")
    demo.generate()
    demo.stereo()
    data = demo.prepare()
    before = demo.untrained(data)
    trained = demo.train(data)
    published = publish(trained.run.run_id, "dpt", "champion")
    demo.say(f"publish: version {published.version} of dpt is now {published.uri}")
    after = demo.evaluate(tracking.fetch_model(published.uri), data, published.uri)
    pictures = [demo.predict(published.uri, data), demo.report(published.uri, data)]
    _print_summary(console, demo, before, after, pictures)


def _print_summary(
    console: Console, demo: Demo, before: Results, after: Results, pictures: Sequence[Path]
) -> None:
    table = Table(
        "held-out scenes of", "AbsRel untrained", "AbsRel trained", "δ < 1.25 untrained", "δ < 1.25 trained"
    )
    for name in before:
        table.add_row(name, *_cells({name: before[name]}, {name: after[name]}))
    table.add_section()
    table.add_row("mean", *_cells(before, after))
    console.print(table)
    first, last = (with_mean(results)[MEAN]["abs_rel"] for results in (before, after))
    console.print(f"AbsRel went from {first:.4f} to {last:.4f}: {last / first:.2f} of the untrained model's.")
    sheets = f"{demo.shown('shards_*.png')}  ({len(DATASETS)} datasets)"
    mlflow = (
        f"{Path(sys.executable).with_name('mlflow')} ui --backend-store-uri {quote(tracking.store_name())}"
    )
    console.print("Look at:", highlight=False)
    for line in (sheets, *pictures, mlflow):
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def _cells(before: Results, after: Results) -> list[str]:
    """Two metrics, each untrained and trained, as text."""
    metrics = ("abs_rel", "delta1")
    return [
        f"{with_mean(results, metrics)[MEAN][metric]:.4f}"
        for metric in metrics
        for results in (before, after)
    ]
