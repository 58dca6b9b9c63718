"use strict";
// The page is whole without this: here long lists are folded, tables sorted, and the map's cells read aloud.
for (const list of document.querySelectorAll("[data-first]")) {
  const first = Number(list.dataset.first);
  const items = () => [...(list.tBodies ? list.tBodies[0].rows : list.children)];
  const fold = (folded) => items().forEach((item, place) => { item.hidden = folded && place >= first; });
  const button = document.createElement("button");
  button.className = "more";
  button.type = "button";
  button.textContent = `Show all ${list.dataset.what}`;
  button.addEventListener("click", () => { list.removeAttribute("data-folded"); fold(false); button.remove(); });
  list.setAttribute("data-folded", "");
  list.addEventListener("sorted", () => fold(list.hasAttribute("data-folded")));
  fold(true);
  (list.closest(".scroll") || list).after(button);
  addEventListener("beforeprint", () => fold(false));
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.replaceAll(",", "");
      const numeric = head.classList.contains("n");
      const order = numeric ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b));
      const rows = [...table.tBodies[0].rows].sort((a, b) => down * order(a, b));
      for (const row of rows) row.hidden = false;
      table.tBodies[0].append(...rows);
      table.dispatchEvent(new Event("sorted"));
    });
  });
}
for (const map of document.querySelectorAll(".heat-map")) {
  const readout = map.closest("section").querySelector(".readout");
  const read = (event) => {
    const cell = event.target.closest("rect");
    if (!cell) return;
    map.querySelector(".chosen")?.classList.remove("chosen");
    cell.classList.add("chosen");
    readout.textContent = cell.querySelector("title").textContent;
  };
  map.addEventListener("pointerover", read);
  map.addEventListener("click", read);
}
