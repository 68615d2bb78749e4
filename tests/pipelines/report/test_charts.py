import re

import cv2
import numpy as np

from pipelines.report.charts import Dots, Line, _apart, dot_chart, line_chart


def test_a_chart_in_a_page_has_the_pages_colours_and_no_others():
    x = np.arange(5.0)
    lines = [Line(name, x, x * factor, x * factor - 1, x * factor + 1) for factor, name in enumerate("abc")]
    html = line_chart("c", "Title <1>", "Caption", lines, "step", "loss").html()
    assert "Title &lt;1&gt;" in html
    assert not re.search(r"#[0-9a-f]{6}", html)
    assert {f"var(--series-{number})" for number in (1, 2, 3)} <= set(re.findall(r"var\([^)]*\)", html))
    assert "http" not in html
    assert "font-family" not in html


def test_files_are_drawn(tmp_path):
    rows = [Dots("a", 0.1, 0.01, 0.2), Dots("b", None, None, 0.3), Dots("c", 0.2, None, None)]
    svg, png = dot_chart("dots", "T", "C", rows, "AbsRel", ("ours", "paper")).write(tmp_path / "charts")
    assert svg.read_text().lstrip().startswith("<?xml")
    picture = cv2.imread(str(png))
    assert picture.min() < 60
    assert picture.max() == 255


def test_labels_are_moved_apart_and_no_farther():
    assert _apart([0.0, 50.0], 0, 100) == [0.0, 50.0]
    placed = _apart([50.0, 50.0, 10.0], 0, 100)
    assert placed[2] == 10.0
    assert sum(placed[:2]) == 100.0
    assert placed[1] - placed[0] > 10
    low = _apart([1.0, 1.0, 1.0], 0, 100)
    assert min(low) == 0.0
