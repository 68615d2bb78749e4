"""Names of files, runs, rows and datasets are text in every report: no formula, no HTML, no escapes."""

import csv
import io
from html.parser import HTMLParser

import numpy as np
import pytest

import dpt
from datasets_prep.formats.pictures import encode_png
from datasets_prep.inspect.html import document, header, section
from datasets_prep.inspect.page import write_page
from datasets_prep.inspect.verify import Inspection, LeftOut
from datasets_prep.manifest import Manifest, PreparedDataset
from datasets_prep.schema import encode_inverse_depth
from datasets_prep.storage.folder import Folder
from pipelines.plain_tables import comma_separated, in_markdown
from pipelines.report import blocks
from pipelines.report.charts import Dots, Line, dot_chart, line_chart, scatter_chart
from pipelines.report.model_card import model_card
from pipelines.report.table import Cell, Column, NumberTable

HOSTILE = r"""<script>alert(1)</script><img src=x onerror="alert('1')">&amp;"'--> \1 $\x{ ${2 | ](http://x)"""
SHORT = r"<b>$\x{ ${"


class Tags(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "srcdoc" for name, _ in attrs)
        assert not (tag == "img" and dict(attrs)["src"] == "x")

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "text", ["=1+1", "+1 x", "-2-3", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", "-x"]
)
def test_text_of_csv_is_no_formula(text):
    ((cell, number),) = csv.reader(io.StringIO(comma_separated([(text, -1.5)])))
    assert cell.startswith("'")
    assert number == "-1.5"


@pytest.mark.parametrize("text", ["-1.5", "+2e3", "-inf", "nan", "", "a=b", "Base {3, 6}", "0.1 %"])
def test_numbers_and_other_text_of_csv_stay_as_they_are(text):
    assert list(csv.reader(io.StringIO(comma_separated([(text, None)])))) == [[text, ""]]


def test_control_characters_do_not_break_a_line_of_csv():
    assert comma_separated([("a\x1b[1m\r\n=1", "b")]) == "a\\x1b[1m\\r\\n=1,b\n"


def test_text_of_markdown_has_no_html_no_links_and_no_cells():
    assert in_markdown("<b>a</b> & b|c\n![x](http://y) [62]") == (
        "&lt;b>a&lt;/b> &amp; b\\|c ![x]\\(http://y) [62]"
    )
    table = NumberTable("t", [Column(HOSTILE), Column("b")], [[Cell.of(HOSTILE), Cell("1", 1, HOSTILE)]])
    head, _, row = table.markdown().splitlines()
    for line in (head, row):
        assert "<" not in line
        assert "](" not in line
    assert row.replace("\\|", "").count("|") == 3


def test_pages_show_names_as_text():
    table = NumberTable(HOSTILE, [Column(HOSTILE, HOSTILE, text=True)], [[Cell(HOSTILE, HOSTILE, HOSTILE)]])
    lines = [Line(SHORT, np.arange(3.0), np.arange(3.0))]
    dots = [Dots(SHORT, 1.0, 0.1, 2.0, "#2b6cb8", True)]
    point = {SHORT: (1.0, 2.0)}
    charts = [
        line_chart("a", HOSTILE, HOSTILE, lines, "x", "y"),
        dot_chart("b", HOSTILE, HOSTILE, dots, "x", ("a", "b", "c")),
        scatter_chart("c", HOSTILE, HOSTILE, point, {SHORT: "#2b6cb8"}, set(), "x", "y"),
    ]
    picture = np.zeros((4, 4, 3), np.uint8)
    parts = [
        header(HOSTILE, HOSTILE, "", {HOSTILE: HOSTILE}),
        section(HOSTILE, HOSTILE, table.html()),
        blocks.tiles([(HOSTILE, HOSTILE, HOSTILE)]),
        blocks.picture_grid([(HOSTILE, picture)]),
        blocks.wide_picture(picture, HOSTILE),
        blocks.notes([HOSTILE]),
        blocks.charts(charts),
    ]
    page = Tags(document(HOSTILE, "\n".join(parts)))
    assert page.tags.count("script") == 1  # that sorts tables
    assert page.text.count("<script>alert(1)</script>") > 15


def test_an_inspection_shows_names_as_text(tmp_path):
    ramp = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    row = {
        "sample_id": HOSTILE, "split": HOSTILE, "target_kind": "metric", "height": 3, "width": 4,
        "image": encode_png(np.zeros((3, 4, 3), np.uint8)), "inverse_depth": encode_inverse_depth(ramp),
        "valid_share": 1.0, "sky_share": 0.0, "scale": 0.5, "depth": None, "label": None, "point_pair": None,
    }  # fmt: skip
    manifest = Manifest(HOSTILE, "metric", "v", {}, {}, 0, "", {}, [])
    inspection = Inspection(
        HOSTILE, HOSTILE, [HOSTILE], {HOSTILE: [HOSTILE]}, [LeftOut(1, HOSTILE, HOSTILE)], [HOSTILE],
        PreparedDataset(Folder(tmp_path), manifest),
    )  # fmt: skip
    page = Tags(write_page(tmp_path / "x.html", [(inspection, [row])]).read_text())
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") > 8


def test_a_model_card_shows_names_as_text():
    lines = model_card(
        dpt.zoo.MODELS["dpt_tiny"].config, f"models/{HOSTILE.replace('/', '')}\n", []
    ).splitlines()
    (title,) = [line for line in lines if line.startswith("# ")]
    assert "<" not in title
