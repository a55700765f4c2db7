"use strict";
// Sorting tables, hiding series and showing the value that is pointed at. Pages are complete without it.

function valueOf(row, column) {
  const cell = row.cells[column];
  const exact = cell.dataset.value;
  if (exact === undefined) return cell.textContent;
  return exact === "" || exact === "nan" ? NaN : Number(exact);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a - b;
  }
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    // No real button: Chromium repeats no heading on paper that holds one.
    const button = document.createElement("span");
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      button.click();
    });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
      // What has no value stays last, whichever way the others stand.
      const missing = (value) => typeof value === "number" && Number.isNaN(value);
      rows.sort(([a], [b]) => (descending && !missing(a) && !missing(b) ? compare(b, a) : compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function makeReadable(figure) {
  const svg = figure.querySelector("svg");
  const tip = figure.querySelector(".tip");
  const data = figure.querySelector("script");
  const points = JSON.parse(data.textContent);
  const hidden = new Set();

  figure.querySelectorAll("[data-toggle]").forEach((button) => {
    button.addEventListener("click", () => {
      const series = button.dataset.toggle;
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      if (shown) hidden.delete(Number(series)); else hidden.add(Number(series));
      svg.querySelectorAll(`[data-series="${series}"]`).forEach((part) => {
        part.style.display = shown ? "" : "none";
      });
    });
  });

  function nearest(x, y) {
    let best = null;
    let least = 30 * 30;
    points.forEach((series, number) => {
      if (hidden.has(number)) return;
      for (const point of series) {
        const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
        if (distance < least) { least = distance; best = point; }
      }
    });
    return best;
  }

  function show(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const point = nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
    tip.hidden = point === null;
    if (point === null) return;
    tip.textContent = point[2];
    const left = point[0] / scale;
    tip.style.left = left < box.width / 2 ? `${left + 8}px` : "";
    tip.style.right = left < box.width / 2 ? "" : `${box.width - left + 8}px`;
    tip.style.top = `${point[1] / scale + 8}px`;
  }

  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  // A finger leaves as soon as it is lifted: what it tapped stays, until another place is tapped.
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") tip.hidden = true; });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("figure").forEach(makeReadable);
