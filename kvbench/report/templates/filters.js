// Filters of panels and rows, and the two commits that are compared. They are in the page's address, and go along
// with links to other pages.

const FIRST = ["geometry", "storage", "metric", "machine"]; // filters that are asked for most
const PAIR = ["from", "to"];
const MOST_VALUES = 400; // of a filter
const facetsOf = (part) => JSON.parse(part.dataset.facets);

function readChoice() {
  return new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
}
let choice = readChoice();

function select(name, values, none) {
  const field = element("select", { name }, element("option", { value: "", textContent: none }));
  field.append(...values.map(([value, text]) => element("option", { value, textContent: text })));
  field.value = choice.get(name) ?? "";
  field.addEventListener("change", () => {
    if (field.value) choice.set(name, field.value); else choice.delete(name);
    remember();
    applyAll();
  });
  return element("label", {}, element("span", { textContent: name }), field);
}

function remember() {
  const address = choice.size ? `#${choice}` : location.pathname;
  try { history.replaceState(null, "", address); } catch { location.hash = String(choice); }
}

function carryAlong() {
  document.querySelectorAll("nav a").forEach((link) => {
    const address = link.getAttribute("href").split("#");
    if (address[1]?.includes("=")) address.pop();
    if (address.length === 1) link.setAttribute("href", choice.size ? `${address[0]}#${choice}` : address[0]);
  });
}

// All values of each facet, here and on the pages beside this one.
function valuesOfFacets(elsewhere) {
  const found = new Map();
  const add = (facets) => Object.entries(facets).forEach(([name, values]) => {
    if (!found.has(name)) found.set(name, new Set());
    [values].flat().forEach((value) => found.get(name).add(value));
  });
  document.querySelectorAll("[data-facets]").forEach((part) => add(facetsOf(part)));
  elsewhere.forEach((page) => add(page.facets));
  SERIES?.forEach((group) => add(group.facets));
  return new Map([...found].filter(([, values]) => values.size > 1 && values.size <= MOST_VALUES));
}

const matches = (facets) => [...choice].every(([name, value]) => PAIR.includes(name) || [facets[name] ?? []].flat().includes(value));

// A row of a change is left where the change lies between the two commits.
function isBetween(facets) {
  const commits = (COMMITS[[facets.machine].flat()[0]] ?? []).map(([name]) => name);
  const [from, to, at] = [choice.get("from"), choice.get("to"), [facets.commit ?? ""].flat()[0]].map((name) => commits.indexOf(name));
  return from < 0 || to < 0 || at < 0 || (at > Math.min(from, to) && at <= Math.max(from, to));
}

function applyAll() {
  document.dispatchEvent(new Event("compared"));
  const panels = [...document.querySelectorAll("section[data-facets]")];
  const rows = [...document.querySelectorAll("tr[data-facets]")];
  panels.forEach((panel) => {
    const facets = facetsOf(panel);
    panel.hidden = !matches(facets) || !comparePanel(panel);
    panel.querySelector("figure")?.dispatchEvent(new CustomEvent("only", { detail: choice.get("storage") }));
  });
  rows.forEach((row) => {
    const facets = facetsOf(row);
    if (matches(facets) && isBetween(facets)) delete row.dataset.out; else row.dataset.out = "yes";
  });
  new Set(rows.map((row) => row.closest("table"))).forEach(fold);
  tellWhatIsLeft(panels, rows);
  carryAlong();
}

function tellWhatIsLeft(panels, rows) {
  const status = document.querySelector("#filters output");
  const parts = [];
  if (panels.length) parts.push(`${panels.filter((panel) => !panel.hidden).length} of ${panels.length} figures`);
  if (rows.length) parts.push(`${rows.filter((row) => !row.dataset.out).length} of ${rows.length} rows`);
  status.replaceChildren(choice.size ? `Shown: ${parts.join(", ")}.` : "");
  const elsewhere = JSON.parse(document.getElementById("filters").dataset.elsewhere).filter((page) => matches(page.facets));
  if (!choice.size || !elsewhere.length) return;
  status.append(" More: ");
  elsewhere.forEach((page) => status.append(element("a", { href: `${page.file}#${choice}`, textContent: page.title }), " "));
}

// Values of the two commits below a figure; false where none of them differs.
function comparePanel(panel) {
  panel.querySelector(".pair")?.remove();
  const script = panel.querySelector("figure > script");
  const data = script && JSON.parse(script.textContent);
  if (!choice.get("from") || !choice.get("to") || !data?.along) return true;
  const names = data.places.map((place) => COMMITS[data.along][place][0]);
  const [from, to] = PAIR.map((name) => names.indexOf(choice.get(name)));
  const lines = data.series.map(([name, values]) => [name, values[from] ?? null, values[to] ?? null]);
  if (lines.every(([, before, after]) => before === after)) return false;
  const list = element("ul", { className: "pair" });
  lines.forEach(([name, before, after]) => {
    const change = before && after !== null ? ` (${after >= before ? "+" : ""}${written(100 * (after / before - 1))} %)` : "";
    list.append(element("li", { textContent: `${name}: ${written(before)} → ${written(after)} ${data.unit}${change}` }));
  });
  panel.querySelector("figure").append(list);
  return true;
}

function makeFilters() {
  const place = document.getElementById("filters");
  if (!place) return;
  const found = valuesOfFacets(JSON.parse(place.dataset.elsewhere));
  const order = [...FIRST.filter((name) => found.has(name)), ...[...found.keys()].filter((name) => !FIRST.includes(name))];
  const commits = [...new Map(Object.values(COMMITS).flat().map((each) => [each[0], each])).values()].reverse();
  const texts = commits.map(([name, date, subject]) => [name, `${name} ${date} ${subject.slice(0, 40)}`]);
  const fields = (names) => names.map((name) => select(name, [...found.get(name)].sort((a, b) => compare(a, b)).map((value) => [value, value]), "all"));
  const form = element("form", {}, ...fields(order.filter((name) => FIRST.includes(name))));
  form.setAttribute("aria-label", "Filters");
  const rest = order.filter((name) => !FIRST.includes(name));
  if (commits.length > 1) form.append(...PAIR.map((name) => select(name, texts, "any commit")));
  form.append(element("button", { type: "reset", textContent: "Clear" }));
  if (rest.length) form.append(element("details", { open: rest.some((name) => choice.get(name)) }, element("summary", { textContent: "More filters" }), ...fields(rest)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => { choice = new URLSearchParams(); remember(); setTimeout(applyAll); });
  const isOpen = choice.size > 0 || matchMedia("(min-width: 40rem)").matches;
  const summary = element("summary", { textContent: commits.length > 1 ? "Filter, or compare two commits" : "Filter" });
  place.append(element("details", { open: isOpen }, summary, form), element("output"));
  form.querySelectorAll("select").forEach((field) => { field.value = choice.get(field.name) ?? ""; });
  applyAll();
  addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    choice = target ? new URLSearchParams() : readChoice();
    form.querySelectorAll("select").forEach((field) => { field.value = choice.get(field.name) ?? ""; });
    applyAll();
    target?.scrollIntoView();
  });
}
