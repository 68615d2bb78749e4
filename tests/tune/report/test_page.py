"""The report of a sweep that was made up: its numbers against arithmetic done here, its page in a browser."""

import csv
import math
import re
import shutil
import statistics
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pytest
from mlflow import MlflowClient

from pipelines.tracking import runs as tracking
from pipelines.tracking.runs import TrackingError
from tests.support import made_up_sweep
from tests.support.browser import ENTER, SPACE, Browser, browsing
from tests.support.commands import said
from tests.support.made_up_sweep import DATASETS, make_sweep, value_of
from tune import records
from tune.ablations import PAPER
from tune.report.page import write_report
from tune.report.remarks import finding, progress
from tune.report.results import read_sweep

pytestmark = pytest.mark.heavy

SEEDS = (0, 1, 2)
TABLES = ("readout", "backbone", "resolution", "speed")
VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(scope="module")
def reported(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the report of a sweep with a failed trial, a running one, and a row that has none."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        failed = {("Add", 1): "FAILED", ("ResNet50", 2): "RUNNING"}
        make_sweep("paper", TABLES, SEEDS, failed, left_out=["MiDaS"], not_started={"DeiT-Base"})
        assert "page: " in said("report", "paper", "--out", folder / "out")
        yield folder / "out"


@pytest.fixture(scope="module")
def figures(reported: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """Rows of tables.csv by table, row and metric."""
    with (reported / "tables.csv").open(newline="") as file:
        return {(row["table"], row["row"], row["metric"]): row for row in csv.DictReader(file)}


def text_of(page: Path) -> str:
    return re.sub(r"<(style|script)>.*?</\1>", "", page.read_text(), flags=re.DOTALL)


def row_of(page: Path, table: str, title: str) -> list[str]:
    """The cells of a row as text."""
    section = page.read_text().split(f'<section id="{table}">')[1].split("</section>")[0]
    for line in section.split("<tr>"):
        cells = re.findall(r"<t[hd][^>]* data-key[^>]*>(.*?)</t[hd]>", line)
        if cells and cells[0] == title:
            return [re.sub(r"<[^>]*>", "", cell) for cell in cells]
    raise AssertionError(f"{table} has no row {title}")


# ---- numbers
def test_every_mean_and_deviation_is_that_of_the_seeds(figures):
    for row in PAPER["readout"].rows:
        seeds = [seed for seed in SEEDS if (row.title, seed) != ("Add", 1)]
        for dataset in DATASETS:
            values = [value_of(row.title, dataset, seed) for seed in seeds]
            found = figures["readout", row.title, records.abs_rel(dataset)]
            assert float(found["ours"]) == pytest.approx(math.fsum(values) / len(values), rel=1e-12)
            assert float(found["deviation"]) == pytest.approx(statistics.stdev(values), rel=1e-9)
            assert int(found["seeds"]) == len(seeds)
            assert float(found["paper"]) == row.paper[dataset]


def test_the_page_shows_paper_ours_and_difference(reported):
    means = {seed: statistics.fmean(value_of("Ignore", d, seed) for d in DATASETS) for seed in SEEDS}
    ours, paper = statistics.fmean(means.values()), 0.0822
    sign = "+" if ours > paper else "\N{MINUS SIGN}"
    cells = row_of(reported / "report.html", "readout", "Ignore")
    assert cells[-4:] == [
        "0.0822",
        f"{ours:.4f} ± {statistics.stdev(means.values()):.4f}",
        f"{sign}{abs(ours - paper):.4f} {sign}{100 * abs(ours / paper - 1):.1f} %",
        "3 of 3",
    ]


def test_rank_agreement_is_counted_pair_by_pair(reported):
    def ours_of(title: str) -> float:
        seeds = [seed for seed in SEEDS if (title, seed) != ("Add", 1)]
        return statistics.fmean(value_of(title, d, s) for d in DATASETS for s in seeds)

    ours = {row.title: ours_of(row.title) for row in PAPER["readout"].rows}
    paper = {row.title: row.paper["mean"] for row in PAPER["readout"].rows}
    pairs = [("Ignore", "Add"), ("Ignore", "Project"), ("Add", "Project")]
    alike = sum((ours[a] < ours[b]) == (paper[a] < paper[b]) for a, b in pairs)
    tau = (2 * alike - 3) / 3  # neither has ties
    text = text_of(reported / "report.html")
    assert f"τ = {tau:.2f}; of 3 pairs of rows that the paper orders, {alike} are in the same order" in text


def test_figure_4_is_in_percent_of_the_training_resolution(reported):
    cells = row_of(reported / "report.html", "resolution", "ViT-Base")
    # The made-up AbsRel rises by 1 % a side and letter of the title.
    changes = [re.match(r"≈\+([\d.]+) %", cell) for cell in cells[2:-1]]  # without any spread, no test
    steps = len("ViT-Base")
    assert [float(found[1]) for found in changes if found] == [1.0 * steps * n for n in (1, 2, 3, 4)]


def test_the_best_of_a_column_is_bold(reported):
    section = reported.joinpath("report.html").read_text().split('<section id="backbone">')[1]
    bold = re.findall(r'class="[^"]*best[^"]*">([\d.]+)', section.split("</section>")[0])
    assert {"0.0738", "0.0746", "0.0846", "0.0778"} <= set(bold), "as the paper prints them"
    assert len(bold) == 8


# ---- what is missing
def test_what_failed_or_was_not_run_is_said(reported):
    page = reported / "report.html"
    text = text_of(page)
    assert "Add: seed 1 failed" in text
    assert "ResNet50: seed 2 running" in text
    assert "DeiT-Base: seeds 0, 1, 2 not started" in text
    assert row_of(page, "backbone", "DeiT-Base")[-1] == "0 of 3"
    assert "not started" in row_of(page, "backbone", "DeiT-Base")
    assert row_of(page, "readout", "Add")[-1] == "2 of 3"
    assert "- **Add: seed 1 failed**" in (reported / "report.md").read_text()


def test_a_model_that_is_only_timed_is_no_training(mlflow_database):
    make_sweep("timed", ["readout", "speed"], [0, 1], with_pictures=False)
    sweep = read_sweep("timed")
    assert {trial.rows.get("readout") for trial in sweep.trainings()} == {"Ignore", "Add", "Project"}
    assert progress(sweep)[:2] == (6, 6)
    assert finding(sweep).startswith("All 6 trainings are finished")
    assert len(sweep.trials) > 6


def test_an_unknown_sweep_is_an_error_that_names_those_there_are(mlflow_database, tmp_path):
    make_sweep("first", ["readout"], [0], with_pictures=False)
    with pytest.raises(TrackingError, match=r"no sweep 'secnod' in sqlite.* there are: first"):
        write_report("secnod", tmp_path / "out")


def test_one_seed_and_other_datasets_are_no_trouble(mlflow_database, tmp_path, monkeypatch):
    monkeypatch.setattr(made_up_sweep, "DATASETS", ("redweb", "tartanair"))
    make_sweep("other", ["readout"], [5], with_pictures=False)
    text = text_of(write_report("other", tmp_path / "out"))
    assert "Our mean is over other datasets" in text
    assert "±" not in text
    assert "tartanair" in text


def test_a_remote_server_is_as_good(mlflow_server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    run_id = make_sweep("remote", ["readout"], [0])
    text = write_report("remote", tmp_path / "out").read_text()
    assert text.count('src="data:image/jpeg') == len(DATASETS) * (2 + 3)
    assert "readout_validation" in {path.stem for path in (tmp_path / "out" / "charts").iterdir()}
    assert len(MlflowClient().list_artifacts(run_id, "report")) == 5


# ---- forms
def test_it_is_attached_to_the_sweeps_run(reported):
    tracking.connect()
    client = MlflowClient()
    run = next(iter(client.search_runs(["1"], "tags.job = 'tune'")))
    there = {entry.path for entry in client.list_artifacts(run.info.run_id, "report")}
    files = ("charts", "report.html", "report.md", "tables.csv", "trials.csv")
    assert there == {f"report/{name}" for name in files}
    charts = client.list_artifacts(run.info.run_id, "report/charts")
    assert len(charts) == len(list((reported / "charts").iterdir()))


def test_charts_are_files_too(reported):
    names = {path.name for path in (reported / "charts").iterdir()}
    readout = ("readout_mean", "readout_validation", "readout_loss")
    for chart in (*readout, "backbone_mean", "resolution", "cost"):
        assert {f"{chart}.svg", f"{chart}.png"} <= names
        picture = cv2.imread(str(reported / "charts" / f"{chart}.png"))
        assert picture.std() > 5


class Nesting(HTMLParser):
    """Complains of tags that are not closed in their order, and collects what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [str(value) for name, value in attrs if name in {"src", "href", "srcset", "data"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(value) for name, value in attrs if name in {"src", "href", "srcset", "data"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(reported):
    text = (reported / "report.html").read_text()
    parser = Nesting()
    parser.feed(text)
    assert parser.open == []
    assert {address.partition(":")[0] for address in parser.loaded if not address.startswith("#")} == {"data"}
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    used = set(re.findall(r'href="#([^"]+)"', text))
    assert used <= set(ids)


# ---- in a browser
@pytest.fixture(scope="module")
def browser(reported: Path) -> Iterator[Browser]:
    with browsing() as window:
        window.open(reported / "report.html")
        yield window


def test_nothing_is_fetched_and_nothing_complained_of(browser, reported):
    assert browser.requested() == [(reported / "report.html").absolute().as_uri()]
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_follows_the_readers_colours(browser, tmp_path, scheme, width):
    browser.look(scheme, width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    picture = cv2.imread(str(browser.screenshot(tmp_path / "page.png")))
    assert picture.shape[1] == width
    corner = picture[:5, :5].mean()
    assert corner > 240 if scheme == "light" else corner < 40
    # Text can be read on it: the difference in lightness of body and heading is that of ink on paper.
    heading = browser.run("return getComputedStyle(document.querySelector('h1')).color")
    assert abs(float(re.findall(r"\d+", heading)[0]) - corner) > 150


def test_a_keyboard_sorts_a_table(browser):
    script = """
      const table = document.querySelector('#backbone table');
      const button = [...table.querySelectorAll('th[data-column] button')].at(COLUMN);
      FOCUS
      const th = button.closest('th');
      return [[...table.tBodies[0].rows].map(row => row.cells[0].innerText.trim()),
              th.getAttribute('aria-sort'), document.activeElement === button];
    """
    last_paper = script.replace("COLUMN", "-4")

    def look(focus: str = "") -> tuple[list[str], str]:
        titles, direction, focused = browser.run(last_paper.replace("FOCUS", focus))
        assert focused
        return titles, direction

    as_printed, direction = look("button.focus();")
    assert direction == "none"
    rows = PAPER["backbone"].rows
    assert as_printed == [row.title for row in rows]
    browser.press(ENTER)
    ascending, direction = look()
    assert direction == "ascending"
    assert ascending == [row.title for row in sorted(rows, key=lambda row: row.paper["mean"])]
    browser.press(SPACE)
    descending, direction = look()
    assert (descending, direction) == (ascending[::-1], "descending")
    browser.press(ENTER)
    assert look() == (as_printed, "none")


def test_what_has_no_figure_stays_last(browser):
    script = """
      const table = document.querySelector('#backbone table');
      [...table.querySelectorAll('th[data-column] button')].at(-3).click();
      return [...table.tBodies[0].rows].at(-1).cells[0].innerText.trim();
    """
    assert [browser.run(script) for _ in range(2)] == ["DeiT-Base"] * 2
