// Sortable tables: a button in a column's header sorts by that column, first ascending, then descending, then
// back to the order of the page. What is missing stays at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headers = [...table.querySelectorAll("th[data-column]")];
  const keyOf = (row, column) => row.cells[column].dataset.key ?? "";
  const compare = (a, b) => {
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? a.localeCompare(b) : difference;
  };
  const sort = (column, direction) => {
    if (direction === "none") return original;
    const sign = direction === "ascending" ? 1 : -1;
    const there = original.filter((row) => keyOf(row, column) !== "");
    const missing = original.filter((row) => keyOf(row, column) === "");
    there.sort((a, b) => sign * compare(keyOf(a, column), keyOf(b, column)));
    return [...there, ...missing];
  };
  const next = { none: "ascending", ascending: "descending", descending: "none" };
  for (const header of headers) {
    header.querySelector("button").addEventListener("click", () => {
      const direction = next[header.getAttribute("aria-sort")];
      for (const other of headers) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", direction);
      body.append(...sort(Number(header.dataset.column), direction));
    });
  }
}
