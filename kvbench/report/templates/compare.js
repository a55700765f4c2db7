// The page of two commits: rows of every series that differs between them. At first the last two that were measured.

const SERIES = JSON.parse(document.getElementById("series")?.textContent ?? "null");
const HEADS = ["change, %", "metric", "where", "storage", "before", "after", "unit"];

function differences(group) {
  const called = Object.keys(group.facets);
  return group.series.flatMap((row) => {
    const facets = Object.fromEntries(called.flatMap((name, place) => (row[place] === null ? [] : [[name, group.facets[name][row[place]]]])));
    const names = COMMITS[facets.machine].map(([name]) => name);
    const values = row.at(-1);
    const at = (name) => (names.includes(name) ? values[values.length > 1 ? names.indexOf(name) : 0] : null);
    const [before, after] = [at(choice.get("from")), at(choice.get("to"))];
    if (before === null || after === null || before === after) return [];
    return [{ facets, before, after, unit: group.unit, growth: before ? after / before : Infinity }];
  });
}

function rowOf({ facets, before, after, unit }) {
  const cell = (value) => (typeof value === "number" ? element("td", { textContent: written(value) }) : element("td", { textContent: value ?? "" }));
  const numbers = [before ? 100 * (after / before - 1) : NaN, before, after];
  const others = Object.entries(facets).filter(([name]) => !["geometry", "metric", "where", "storage", "machine"].includes(name));
  const where = [facets.geometry, ...others.map(([name, value]) => `${name}=${value}`)].filter(Boolean).join(", ");
  const cells = [numbers[0], facets.metric, where, facets.storage, before, after, unit].map(cell);
  [0, 4, 5].forEach((column, place) => { cells[column].dataset.value = Number.isNaN(numbers[place]) ? "" : String(numbers[place]); });
  const row = element("tr", {}, ...cells);
  row.dataset.facets = JSON.stringify(facets);
  return row;
}

function fill(section, groups) {
  const found = groups.flatMap(differences).sort((a, b) => b.growth - a.growth);
  if (!found.length) {
    section.replaceChildren(element("p", { className: "faint", textContent: "No difference." }));
    return;
  }
  const heads = element("tr", {}, ...HEADS.map((name) => element("th", { scope: "col", textContent: name })));
  const caption = element("caption", { className: "unseen", textContent: section.dataset.compared });
  const table = element("table", { className: "sortable" }, caption, element("thead", {}, heads), element("tbody", {}, ...found.map(rowOf)));
  section.replaceChildren(table);
  makeTable(table);
}

// A difference between two environments may be theirs, and no commit's.
function sayWhatElseChanged() {
  const changes = JSON.parse(document.getElementById("changes").textContent);
  const said = Object.entries(changes).flatMap(([machine, { places, texts }]) => {
    const names = COMMITS[machine].map(([name]) => name);
    const [from, to] = ["from", "to"].map((end) => places[names.indexOf(choice.get(end))]);
    const text = texts[from]?.[to];
    return text ? [element("p", { textContent: `The environment changed, too: ${text}, on ${machine}. A difference may be due to it.` })] : [];
  });
  document.getElementById("crossed").replaceChildren(...said);
}

let filled = "";
function fillBoth() {
  const pair = `${choice.get("from")} ${choice.get("to")}`;
  if (pair === filled) return;
  filled = pair;
  sayWhatElseChanged();
  document.querySelectorAll("[data-compared]").forEach((section) => {
    fill(section, SERIES.filter((group) => group.exact === (section.dataset.compared === "exact")));
  });
}

if (SERIES) {
  const longest = Object.values(COMMITS).sort((a, b) => b.length - a.length)[0] ?? [];
  const [from, to] = longest.slice(-2).map(([name]) => name);
  if (!choice.get("from")) choice.set("from", from ?? "");
  if (!choice.get("to")) choice.set("to", to ?? "");
  fillBoth();
  document.addEventListener("compared", fillBoth);
}
makeFilters();
