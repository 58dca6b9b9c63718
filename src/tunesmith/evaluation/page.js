"use strict";
// The page is whole without this: here long lists are folded, tables sorted, mistakes filtered, and charts read aloud.
for (const list of document.querySelectorAll("[data-first]")) {
  const first = Number(list.dataset.first);
  const items = () => [...(list.tBodies ? list.tBodies[0].rows : list.children)];
  const fold = (folded) => items().forEach((item, place) => { item.hidden = folded && place >= first; });
  const button = document.createElement("button");
  button.className = "more";
  button.type = "button";
  button.textContent = `Show all ${list.dataset.what}`;
  button.addEventListener("click", () => {
    list.removeAttribute("data-folded");
    fold(false);
    button.remove();
    items()[first].tabIndex = -1;
    items()[first].focus();
  });
  list.setAttribute("data-folded", "");
  list.addEventListener("sorted", () => fold(list.hasAttribute("data-folded")));
  fold(true);
  (list.closest(".scroll") || list).after(button);
  addEventListener("beforeprint", () => fold(false));
}
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details.part")) part.open = true; });
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
  const names = [...map.parentElement.querySelectorAll(".heat-names span")].map((name) => name.textContent);
  const side = Number(map.dataset.cell);
  const cells = [...map.querySelectorAll("rect")];
  const at = (cell) => ({ down: cell.y.baseVal.value / side, across: cell.x.baseVal.value / side });
  const read = (cell) => {
    map.querySelector(".chosen")?.classList.remove("chosen");
    cell.classList.add("chosen");
    const { down, across } = at(cell);
    const called = down === across ? "rightly called" : "called";
    readout.textContent = `${names[down]} ${called} ${names[across]}: ${cell.querySelector("title").textContent}`;
  };
  const pointed = (event) => { const cell = event.target.closest("rect"); if (cell) read(cell); };
  map.addEventListener("pointerover", pointed);
  map.addEventListener("click", pointed);
  map.tabIndex = 0;
  readout.textContent = "Point at a cell to read it, or move with the arrow keys.";
  map.addEventListener("keydown", (event) => {
    if (!/^Arrow(Left|Right|Up|Down)$/.test(event.key) || !cells.length) return;
    event.preventDefault();
    const now = map.querySelector(".chosen");
    const place = cells.indexOf(now);
    const forth = /Right|Down/.test(event.key) ? 1 : -1;
    if (!now) return read(cells[0]);
    if (/Left|Right/.test(event.key)) return read(cells[Math.max(0, Math.min(cells.length - 1, place + forth))]);
    const { down, across } = at(now);
    const beyond = cells.filter((cell) => forth * (at(cell).down - down) > 0);
    const far = (cell) => [Math.abs(at(cell).down - down), Math.abs(at(cell).across - across)];
    const nearest = beyond.sort((a, b) => far(a)[0] - far(b)[0] || far(a)[1] - far(b)[1])[0];
    if (nearest) read(nearest);
  });
}
for (const list of document.querySelectorAll("ol.mistakes")) {
  const items = [...list.children];
  if (items.length < 4) continue;
  const more = list.nextElementSibling;
  const bar = document.createElement("div");
  bar.className = "filter";
  const named = (name, field) => {
    const label = document.createElement("label");
    label.append(`${name[0].toUpperCase()}${name.slice(1)} `, field);
    bar.append(label);
    return field;
  };
  const choice = (key, name) => {
    const counts = new Map();
    for (const item of items) counts.set(item.dataset[key], (counts.get(item.dataset[key]) ?? 0) + 1);
    if (counts.size < 2 || counts.size === items.length) return null;
    const field = document.createElement("select");
    field.append(new Option("any", ""));
    const names = [...counts].sort((a, b) => a[0].localeCompare(b[0]));
    names.forEach(([value, count], place) => field.append(new Option(`${value} (${count})`, String(place))));
    named(name, field);
    return (item) => field.value === "" || item.dataset[key] === names[Number(field.value)][0];
  };
  const chosen = [choice("truth", list.dataset.truthIs), choice("said", "Said")].filter(Boolean);
  const words = named("Contains", document.createElement("input"));
  words.type = "search";
  const found = document.createElement("output");
  bar.append(found);
  const apply = () => {
    const wanted = words.value.trim().toLowerCase();
    const active = wanted !== "" || [...bar.querySelectorAll("select")].some((field) => field.value !== "");
    let shown = 0;
    for (const item of items) {
      const held = (wanted === "" || item.textContent.toLowerCase().includes(wanted)) && chosen.every((fits) => fits(item));
      item.hidden = !held;
      shown += held;
    }
    found.textContent = active ? `${shown} of ${items.length}` : "";
    if (more?.matches("button.more")) more.hidden = active;
    if (!active) list.dispatchEvent(new Event("sorted"));
  };
  bar.addEventListener("input", apply);
  list.before(bar);
}
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);
for (const chart of document.querySelectorAll('.plot svg[role="img"]')) {
  const [left, right] = (chart.dataset.x ?? "0 1").split(" ").map(Number);
  const [low, high] = (chart.dataset.y ?? "0 1").split(" ").map(Number);
  const [across, up] = (chart.dataset.names ?? "|").split("|");
  const lines = [...chart.querySelectorAll("polyline.line")];
  const at = (path) => path.getAttribute("d").slice(1, -2).split(/[ ,]/).map(Number);
  const told = (part) => part.querySelector("title")?.textContent;
  const dots = [...chart.querySelectorAll(".point, .speck, .dot")].map((dot) => [...at(dot), told(dot)]);
  const figure = (value) => String(Number(value.toPrecision(4)));
  const read = (x, y) => `${across} ${figure(left + (x / 1000) * (right - left))}: ${`${up} ${figure(high - (y / 1000) * (high - low))}`.trim()}`;
  const named = (line, { x, y }) => [x, y, told(line) ? `${told(line)}, ${read(x, y)}` : undefined];
  const along = chart.dataset.x ? lines.flatMap((line) => [...line.points].map((point) => named(line, point))) : [];
  const points = dots.length ? dots : along;
  if (!points.length) continue;
  const oneLine = lines.length === 1;
  let place = 0;
  const show = (next) => {
    place = next;
    const [x, y, said] = points[place];
    tip.textContent = said ?? read(x, y);
    tip.hidden = false;
    const box = chart.getBoundingClientRect();
    const spot = box.left + (x / 1000) * box.width - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(4, Math.min(spot, document.documentElement.clientWidth - tip.offsetWidth - 4)) + scrollX}px`;
    tip.style.top = `${box.top + (y / 1000) * box.height - tip.offsetHeight - 10 + scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };
  const point = (event) => {
    const box = chart.getBoundingClientRect();
    const x = (1000 * (event.clientX - box.left)) / box.width;
    const y = (1000 * (event.clientY - box.top)) / box.height;
    const far = ([px, py]) => (px - x) ** 2 + (oneLine ? 1e-3 : 1) * (py - y) ** 2;
    show(points.reduce((best, one, index) => (far(one) < far(points[best]) ? index : best), 0));
  };
  chart.tabIndex = 0;
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerdown", point);
  chart.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  chart.addEventListener("focus", () => { if (chart.matches(":focus-visible")) show(place); });
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    show(Math.max(0, Math.min(points.length - 1, place + step)));
  });
}
