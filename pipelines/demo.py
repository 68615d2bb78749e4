"""`dpt demo`: every step from raw data to a report on rendered scenes, in a few minutes on two cores.

Every step calls what the command of that name calls. The datasets are rendered in their original folder
layouts and file formats, so that the same readers are used as for the real ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote

import ray
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import dpt
from datasets_prep.errors import one_line
from datasets_prep.formats.pictures import encode_png
from datasets_prep.ingest.run import ingest_all
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.inspect.verify import draw_contact_sheet
from datasets_prep.manifest import open_dataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.rendering import rendering_datasets
from datasets_prep.stereo.run import plan_stereo, read_report, run_stereo
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.lease import owning
from datasets_prep.storage.writing import writing_file
from dpt.predict.colours import colourise
from pipelines.cluster.session import connect
from pipelines.cluster.stages import stages_with_log
from pipelines.config import Experiment
from pipelines.config_files import load_experiment
from pipelines.evaluate import evaluate
from pipelines.loading.batches import evaluation_batches
from pipelines.predict import Predictor
from pipelines.publish import publish
from pipelines.report.model_page import write_model_report
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_keys import MEAN, MEAN_MAP, SKILL, with_mean
from pipelines.tracking.model_reference import load_model
from pipelines.train import TrainingStopped, TrainResult, train
from pipelines.training.start import build_model

TRAINED = ("redweb", "hrwsi", "blendedmvs", "tartanair")
"""Trained on: the paper's three curated datasets, and a metric one with sky."""

OTHERS = ("diml", "megadepth", "apolloscape", "irs")
"""Only prepared: a few images each."""

STEREO = ("movies", "wsvd")
"""Stereo videos, whose ground truth is computed before they are prepared."""

Results = dict[str, dict[str, float]]
"""Dataset → metric → value."""

Sweep = Callable[[Path, str, Callable[[str], None]], Path]

LOG = "demo.log"
"""Name of the log in the demo's folder."""


class Demo:
    """The steps of the demo in the folder `out`, which tell `say` what they do, and last what they did.

    `experiment` has the configs of all jobs.
    """

    def __init__(self, out: Path, experiment: Experiment, say: Callable[[str], None]) -> None:
        self._out, self._experiment, self._say = out, experiment, say

    def generate(self, names: Sequence[str], images: int) -> None:
        """Render the raw datasets `names`, `images` each or a few more."""
        settings = self._experiment.demo
        self._say(f"{images} images each in the layouts of {', '.join(names)}")
        sets = {name: (self._raw(name), scenes_for(name, images)) for name in names}
        for _ in rendering_datasets(sets, settings.seed, settings.height, settings.width):
            pass

    def stereo(self) -> None:
        """Compute the ground truth of the stereo videos."""
        frames = 0
        for name in STEREO:
            raw, out = self._raw(name), str(self._computed(name))
            lists = str(raw / "lists") if name == "wsvd" else None
            plan = plan_stereo(name, str(raw / "videos"), self._experiment.stereo, lists)
            deque(run_stereo(plan, out), maxlen=0)
            frames += read_report(out).frames
        self._say(f"ground truth of {frames} frames of the videos of {', '.join(STEREO)}, by optical flow")

    def prepare(self, names: Sequence[str]) -> list[str]:
        """Prepare the raw datasets `names`; returns where."""
        shards, samples, quarantined = str(self._out / "shards"), 0, 0
        for name in names:
            raw = self._computed(name) if name in STEREO else self._raw(name)
            prepared = ingest_all(plan_ingest(name, str(raw), self._experiment.prepare), shards)
            counts = ", ".join(f"{count} {split}" for split, count in prepared.manifest.samples.items())
            self._say(f"{name}: {counts}, {prepared.manifest.quarantined} quarantined")
            samples += sum(prepared.manifest.samples.values())
            quarantined += prepared.manifest.quarantined
            draw_contact_sheet(prepared, self.shown(f"shards_{name}.png"), samples=6)
        self._say(f"{samples} images of {len(names)} datasets, {quarantined} quarantined")
        return [f"{shards}/{name}" for name in names]

    def evaluate(self, model: Path, data: Sequence[str], what: str) -> Results:
        """Evaluate a `model`, called `what` in the output, on the held-out scenes of `data`."""
        results = evaluate(self._experiment.evaluate, model, data)
        mean = with_mean(results)[MEAN]
        self._say(f"{what}: AbsRel {mean['abs_rel']:.4f} on held-out scenes, skill {mean[SKILL]:.2f}")
        return results

    def untrained(self, data: Sequence[str]) -> Results:
        """Evaluate the initial model, with the weights that training starts from, on `data`."""
        torch.manual_seed(self._experiment.train.seed)
        model = build_model(self._experiment.train.model, self._experiment.train.crop_size)
        with tempfile.TemporaryDirectory(prefix="dpt-demo-") as folder:
            dpt.save_model(model, Path(folder))
            return self.evaluate(Path(folder), data, "untrained")

    def train(self, data: Sequence[str]) -> TrainResult:
        """Train on `data`, without the held-out scenes. Raises TrainingStopped after a signal."""
        name = f"demo-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
        config = self._experiment.train
        try:
            trained = train(config, data, name, str(self._out / "runs"), show=self._say)
        except TrainingStopped as error:
            raise TrainingStopped("stopped; `dpt demo` keeps what it prepared, and trains anew") from error
        self._say(f"{config.model.name}, {config.steps} steps of {config.batch_size} images: run {name}")
        return trained

    def predict(self, uri: str, data: Sequence[str]) -> Path:
        """Predict a held-out image of each of `data` with the model at `uri`; returns the picture's path."""
        predictor = Predictor(self._experiment.predict, load_model(uri))
        rows, captions = [], []
        for dataset in map(open_dataset, data):
            split = self._experiment.evaluate.split
            sample = next(evaluation_batches(dataset, split, 0, rank=0, world_size=1, batch_size=1))
            image, truth = sample.images[0].numpy(), sample.target[0].float().numpy()
            [prediction] = predictor([image])
            predictor.write(Folder(self._out / "prediction"), dataset.name, image, prediction)
            rows.append([image, colourise(truth), colourise(prediction)])
            captions.append(f"{dataset.name}: {sample.sample_ids[0]}  (image, ground truth, prediction)")
        path = self.shown("prediction.png")
        with writing_file(path) as partial:
            partial.write_bytes(encode_png(contact_sheet(rows, captions, height=192)))
        self._say(f"held-out images: {path}")
        return path

    def report(self, uri: str, data: Sequence[str]) -> Path:
        """Write the page of the registered model at `uri` with predictions on `data`; returns its path."""
        path = write_model_report(uri, self._out / "model_report", data, images=2)
        self._say(f"measurements, predictions with their errors, attention, resolution: {path}")
        return path

    def _raw(self, name: str) -> Path:
        return self._out / "raw" / name

    def _computed(self, name: str) -> Path:
        return self._out / "raw" / f"{name}_computed"

    def shown(self, name: str) -> Path:
        """Path of the picture `name`."""
        self._out.mkdir(parents=True, exist_ok=True)
        return self._out / name


def scenes_for(name: str, images: int) -> int:
    """Number of scenes of dataset `name` that give `images` images, or more if a scene has several views.

    Views of a scene resemble each other: fewer scenes would be learnt by heart.
    """
    return max(2, images // (3 if name in ("blendedmvs", "tartanair") else 1))


def run_demo(out: Path, config: str, sweep: Sweep) -> None:
    """Run the demo in folder `out` with a `config` file, and print its stages, results, and what to open.

    `sweep` is the last stage: called with both and a function that takes progress, it returns its page.
    """
    start, out, experiment = time.perf_counter(), out.absolute(), load_experiment(config)
    print(one_line(f"all steps in {out}; what they print is in {LOG} there"), flush=True)
    with owning(Folder(out), "demo", print), stages_with_log(out / LOG) as stages:
        demo, stage = Demo(out, experiment, stages.say), stages.stage
        with stage("connect"):
            connect()
            tracking.connect()
            stages.say(
                f"Ray with {ray.cluster_resources()['CPU']:.0f} cores, MLflow in {tracking.store_name()}"
            )
        with stage("generate"):
            demo.generate(TRAINED, experiment.demo.images)
        with stage("prepare"):
            data = demo.prepare(TRAINED)
        with stage("train"):
            trained = demo.train(data)
        with stage("publish"):
            published = publish(trained.run.run_id, "dpt", "champion")
            stages.say(f"version {published.version} of dpt is now {published.uri}")
        with stage("predict"):
            picture = demo.predict(published.uri, data)
        with stage("evaluate"):
            after = demo.evaluate(tracking.fetch_model(published.uri), data, published.uri)
        with stage("evaluate"):
            before = demo.untrained(data)
        with stage("report"):
            page = demo.report(published.uri, data)
        with stage("generate"):
            demo.generate((*OTHERS, *STEREO), experiment.demo.others)
        with stage("stereo"):
            demo.stereo()
        with stage("prepare"):
            demo.prepare((*OTHERS, *STEREO))
        with stage("tune"):
            tables = sweep(out, config, stages.say)
        stages.console.print(results_table({"untrained": before, "trained": after}))
        stages.console.print(f"{time.perf_counter() - start:.0f} seconds in all. Open:", highlight=False)
        _print_what_to_open(
            stages.console,
            {
                picture: "held-out images, their ground truth and the predictions",
                page: "the model",
                tables: "the sweep: miniatures of the paper's tables",
                demo.shown("shards_*.png"): "the datasets",
                out / LOG: "the log of all stages",
            },
        )


def results_table(models: Mapping[str, Results]) -> Table:
    """AbsRel and skill of some `models`, name → results, and of the mean map, by dataset and in the mean."""
    rows = {name: with_mean(results) for name, results in models.items()}
    columns = next(iter(rows.values()))
    rows["mean map"] = {name: {"abs_rel": result[MEAN_MAP], SKILL: 0.0} for name, result in columns.items()}
    title = "Held-out scenes: AbsRel, lower is better, and skill, higher is better"
    # Wide cells have to fit into a terminal of eighty columns.
    table = Table("", title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, justify="right")
    for name, results in sorted(rows.items(), key=lambda row: -row[1][MEAN]["abs_rel"]):
        cells = (f"{result['abs_rel']:.4f} {result[SKILL]:+.2f}" for result in results.values())
        table.add_row(name, *cells)
    return table


def _print_what_to_open(console: Console, files: Mapping[Path, str]) -> None:
    for path, what in files.items():
        console.print(f"  {path}  ({what})", highlight=False, markup=False, soft_wrap=True)
    mlflow = quote(str(Path(sys.executable).with_name("mlflow")))
    command = f"{mlflow} ui --backend-store-uri {quote(tracking.store_name())}"
    console.print(f"  {command}  (all runs)", highlight=False, markup=False, soft_wrap=True)
