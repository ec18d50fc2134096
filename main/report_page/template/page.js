// Sorts a table by the column whose heading is pressed; empty cells stay last.
const key = (row, column) => {
  const cell = row.cells[column];
  if (column === 0) return cell.textContent;
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "string" ? a.localeCompare(b) : a - b;
      return ascending ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
// Legends: pressed names bring their lines out of the panels below.
for (const legend of document.querySelectorAll(".legend")) {
  const panels = legend.nextElementSibling;
  for (const button of legend.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", pressed);
      for (const line of panels.querySelectorAll(`.line[data-row="${button.dataset.row}"]`)) {
        line.classList.toggle("shown", pressed);
      }
      panels.classList.toggle("chosen", panels.querySelector(".line.shown") !== null);
    });
  }
}
const box = document.getElementById("intervals");
box.addEventListener("change", () => document.body.classList.toggle("no-intervals", !box.checked));
