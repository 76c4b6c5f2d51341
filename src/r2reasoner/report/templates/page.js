// Makes the tables sortable by their headings. Without it, all is there in the order of the report.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 3) continue;
  const first = [...body.rows];
  heads.forEach((head, at) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const number = head.classList.contains("number");
      const next = { null: number ? "descending" : "ascending",
        descending: number ? "ascending" : null, ascending: number ? null : "descending" }[before];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (!next) { body.append(...first); return; }
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const key = (row) => {
        const cell = row.cells[at];
        return number ? (cell.dataset.sort === undefined ? NaN : Number(cell.dataset.sort))
          : cell.textContent;
      };
      body.append(...[...first].sort((a, b) => {
        const x = key(a), y = key(b);
        if (!number) return sign * x.localeCompare(y, undefined, { numeric: true });
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      }));
    });
  });
}
