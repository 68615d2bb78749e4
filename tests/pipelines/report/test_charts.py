import re

import cv2
import numpy as np

from pipelines.report.charts import Dots, Line, _apart, colours_of, dot_chart, line_chart


def test_a_chart_in_a_page_has_the_pages_colours_and_no_others():
    x = np.arange(5.0)
    colours = colours_of("abc")
    lines = [Line(n, x, x * f, x * f - 1, x * f + 1, colours[n]) for f, n in enumerate("abc")]
    html = line_chart("c", "Title <1>", "Caption", lines, "step", "loss").html()
    assert "Title &lt;1&gt;" in html
    assert not re.search(r"#[0-9a-f]{6}", html)
    assert {f"var(--series-{number})" for number in (1, 2, 3)} <= set(re.findall(r"var\([^)]*\)", html))
    assert "http" not in html
    assert "font-family" not in html


def test_files_are_drawn(tmp_path):
    blue, red = colours_of("ab").values()
    rows = [Dots("a", 0.1, 0.01, 0.2, blue, True), Dots("b", None, None, 0.3, red, True)]
    rows += [Dots("c", 0.2, None, None, red, False)]
    chart = dot_chart("dots", "T", "C", rows, "AbsRel", ("ours", "like the best", "paper"))
    svg, png = chart.write(tmp_path / "charts")
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
