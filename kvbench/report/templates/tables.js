"use strict";
// Tables: sorted by their exact values, opened row by row, folded where they are long, and cards on a phone.
// Pages are complete without it.

const FOLDED = 20; // rows that a long table shows at first
const CARDS = 3; // columns from which a phone shows a row as a card

function element(tag, values = {}, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}

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

// Rows without those that only say more of the one before them.
const rowsOf = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("rest"));
const restOf = (row) => (row.nextElementSibling?.classList.contains("rest") ? row.nextElementSibling : null);

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells].filter((head) => !head.classList.contains("opens"));
  heads.forEach((head, column) => {
    // No real button: Chromium repeats no heading on paper that holds one.
    const button = element("span", { tabIndex: 0 }, ...head.childNodes);
    button.setAttribute("role", "button");
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      button.click();
    });
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = rowsOf(table).map((row) => [valueOf(row, column), row, restOf(row)]);
      // What has no value stays last, whichever way the others stand.
      const missing = (value) => typeof value === "number" && Number.isNaN(value);
      rows.sort(([a], [b]) => (descending && !missing(a) && !missing(b) ? compare(b, a) : compare(a, b)));
      table.tBodies[0].append(...rows.flatMap(([, row, rest]) => (rest ? [row, rest] : [row])));
      fold(table);
    });
  });
}

// Of a table with more columns than there is room for, the last ones stand below each row, which a button opens.
function makeOpening(table) {
  const first = Number(table.dataset.first);
  if (!first) return;
  const head = table.tHead.rows[0];
  const names = [...head.cells].slice(first).map((cell) => { cell.remove(); return cell.textContent; });
  head.append(element("th", { scope: "col", className: "opens" }, element("span", { className: "unseen", textContent: "more" })));
  for (const row of [...table.tBodies[0].rows]) {
    const list = element("dl");
    [...row.cells].slice(first).forEach((cell, place) => {
      cell.remove();
      if (cell.textContent === "" || cell.dataset.value === "") return;
      list.append(element("div", {}, element("dt", { textContent: names[place] }), element("dd", {}, ...cell.childNodes)));
    });
    const rest = element("tr", { className: "rest closed" }, element("td", { colSpan: first + 1 }, list));
    const button = element("button", { type: "button", textContent: "more" });
    const told = [...row.cells].slice(0, 3).map((cell) => cell.textContent).join(" ");
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `more of ${told}`);
    button.addEventListener("click", () => {
      const closed = rest.classList.toggle("closed");
      button.setAttribute("aria-expanded", String(!closed));
      button.textContent = closed ? "more" : "less";
      button.setAttribute("aria-label", `${button.textContent} of ${told}`);
    });
    row.append(element("td", { className: "opens" }, button));
    row.after(rest);
  }
}

// A phone has no room for columns: rows become cards, each cell below its heading. Roles keep it a table to be read out.
function makeCards(table) {
  const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  if (heads.length < CARDS) return;
  table.classList.add("cards");
  table.setAttribute("role", "table");
  [table.tHead, ...table.tBodies].forEach((part) => part.setAttribute("role", "rowgroup"));
  [...table.rows].forEach((row) => row.setAttribute("role", "row"));
  [...table.tHead.rows[0].cells].forEach((head) => head.setAttribute("role", "columnheader"));
  [...table.tBodies[0].rows].forEach((row) => [...row.cells].forEach((cell, column) => {
    cell.setAttribute("role", "cell");
    if (!row.classList.contains("rest")) cell.dataset.label = heads[column];
  }));
}

// Hides rows that a filter leaves out, and of a long table all but the first that are left.
function fold(table) {
  const rows = rowsOf(table);
  const left = rows.filter((row) => !row.dataset.out);
  const all = table.dataset.unfolded || left.length <= FOLDED + 5;
  const shown = new Set(all ? left : left.slice(0, FOLDED));
  rows.forEach((row) => {
    row.classList.toggle("folded", !shown.has(row));
    restOf(row)?.classList.toggle("folded", !shown.has(row));
  });
  const button = table.nextElementSibling;
  if (button?.classList.contains("unfold")) {
    button.hidden = all;
    button.textContent = `Show all ${left.length} rows`;
  }
}

function makeFolding(table) {
  if (rowsOf(table).length <= FOLDED + 5) return;
  const button = element("button", { type: "button", className: "unfold" });
  button.addEventListener("click", () => {
    table.dataset.unfolded = "yes";
    fold(table);
  });
  table.after(button);
  fold(table);
}

// Words are kept whole where the table fits its place so.
const room = new ResizeObserver((changes) => changes.forEach(({ target }) => {
  for (const table of target.querySelectorAll(":scope > table")) {
    table.classList.add("roomy");
    table.classList.toggle("roomy", table.offsetWidth <= target.clientWidth);
  }
}));

function makeTable(table) {
  room.observe(table.parentElement);
  makeOpening(table);
  makeSortable(table);
  makeCards(table);
  makeFolding(table);
}

document.querySelectorAll("table.sortable").forEach(makeTable);
