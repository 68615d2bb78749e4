from pipelines.report.table import Cell, Column, NumberTable

TABLE = NumberTable(
    "Numbers",
    [Column("row", text=True), Column("paper", "Mean"), Column("ours", "Mean")],
    [
        [Cell.of("a|<b>"), Cell("0.1", 0.1, best=True), Cell("0.2", 0.2, "± 0.01", tone="worse")],
        [Cell.of("c"), Cell("0.3", 0.3), Cell.absent("failed")],
    ],
)


def test_markdown():
    header = ["| row | Mean paper | Mean ours |", "| :-- | --: | --: |"]
    rows = ["| a\\|&lt;b> | **0.1** | 0.2 ± 0.01 |", "| c | 0.3 | failed |"]
    assert TABLE.markdown().splitlines() == header + rows


def test_html_escapes_and_tells_what_to_sort_by():
    html = TABLE.html()
    assert "<b>" not in html
    assert '<th scope="row" data-key="c" class="text">c</th>' in html
    assert 'data-key="0.2" class="worse">0.2 <small>± 0.01</small></td>' in html
    assert '<td data-key="" class="missing">failed</td>' in html
    assert 'colspan="2"' in html
    assert html.count('aria-sort="none"') == html.count('<button type="button">') == 3
