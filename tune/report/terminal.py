"""The tables and remarks of a sweep's report, for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datasets_prep.errors import printable
from pipelines.report.table import NumberTable
from tune.report.comparison import tables_of
from tune.report.remarks import remarks
from tune.report.results import read_sweep
from tune.report.tables import accuracy_table, resolution_table, speed_table

_OTHER_THAN_ACCURACY = {"resolution": resolution_table, "speed": speed_table}


def print_tables(sweep: str, console: Console) -> None:
    """Print every table of a `sweep` to `console`: paper, ours ± deviation over seeds, the best in bold.

    Raises:
        TrackingError: if there is no such sweep.
    """
    for results in tables_of(read_sweep(sweep)):
        table = _OTHER_THAN_ACCURACY.get(results.table.name, accuracy_table)(results)
        console.print(f"\n{table.title}", style="bold", highlight=False, markup=False)
        console.print(_printed(table))
        for remark in remarks(results):
            console.print(f"  {remark}", highlight=False, markup=False)


def _printed(table: NumberTable) -> Table:
    printed = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for column in table.columns:
        title = f"{column.group}\n{column.title}".strip()
        printed.add_column(title, justify="left" if column.text else "right")
    for row in table.rows:
        texts = [(printable(f"{cell.text} {cell.detail}".strip()), cell.best) for cell in row]
        printed.add_row(*(Text(text, style="bold" if best else "") for text, best in texts))
    return printed
