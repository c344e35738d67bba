"use strict";
// Tables sort by a click on a heading; figures by their unrounded value, missing ones last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const numeric = heading.classList.contains("n");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const direction = heading.getAttribute("aria-sort") === first ? other : first;
    headings.forEach((h) => h.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => {
      const cell = row.cells[column];
      const known = cell.dataset.v;
      if (known !== undefined) return Number(known);
      return numeric ? NaN : cell.textContent.trim();
    };
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      if (typeof a === "number" && typeof b === "number") return sign * (a - b);
      return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}
// What is folded away on the screen belongs on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.cases)").forEach((d) => (d.open = true)));
