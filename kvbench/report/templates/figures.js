// Figures: the value that is pointed at, by a mouse, a finger or the arrow keys; series that can be hidden.

const CONTROL = document.getElementById("filters")?.dataset.control;
const COMMITS = JSON.parse(document.getElementById("commits")?.textContent ?? "{}");

function written(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
}

// Points as [x, y, text], of values along commits.
function pointsOf(data) {
  const told = (numbers) => numbers.map((number) => data.lines[number]).join("\n");
  if (data.lines) return data.series.map((points) => points.map(([x, y, ...lines]) => [x, y, told(lines)]));
  const commits = COMMITS[data.along];
  return data.series.map(([name, values]) => values.flatMap((value, place) => {
    if (value === null) return [];
    const [commit, , subject] = commits[data.places[place]];
    const height = data.log ? Math.log10(value) : value;
    const text = `${written(value)} ${data.unit}\n${name}\n${commit} ${subject.slice(0, 60)}`;
    return [[data.x[0] + data.x[1] * place, data.y[0] + data.y[1] * height, text]];
  }));
}

function makeReadable(figure) {
  const svg = figure.querySelector("svg");
  const canvas = figure.querySelector(".canvas");
  const tip = figure.querySelector(".tip");
  const points = pointsOf(JSON.parse(figure.querySelector("script").textContent));
  const hidden = new Set();

  function toggle(button, shown) {
    const series = Number(button.dataset.toggle);
    button.setAttribute("aria-pressed", String(shown));
    if (shown) hidden.delete(series); else hidden.add(series);
    svg.querySelectorAll(`[data-series="${series}"]`).forEach((part) => { part.style.display = shown ? "" : "none"; });
  }
  const buttons = [...figure.querySelectorAll("[data-toggle]")];
  buttons.forEach((button) => {
    button.addEventListener("click", () => toggle(button, button.getAttribute("aria-pressed") !== "true"));
  });
  // Of a filtered storage, its line is left, and that of the one that all are measured against.
  figure.addEventListener("only", ({ detail }) => {
    const names = buttons.map((button) => button.textContent.trim().split(", "));
    const known = detail && names.some((each) => each.includes(detail));
    buttons.forEach((button, place) => {
      toggle(button, !known || names[place].includes(detail) || names[place].includes(CONTROL));
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

  function tell(point) {
    tip.hidden = !point;
    if (!point) return;
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    tip.textContent = point[2];
    const left = point[0] / scale;
    tip.style.left = left < box.width / 2 ? `${left + 8}px` : "";
    tip.style.right = left < box.width / 2 ? "" : `${box.width - left + 8}px`;
    tip.style.top = `${point[1] / scale + 8}px`;
  }

  function show(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    tell(nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale));
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  // A finger leaves as soon as it is lifted: what it tapped stays, until another place is tapped.
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") tip.hidden = true; });
  if (points.some((series) => series.length)) makeWalkable(canvas, points, hidden, tell);
}

// Left and right go from point to point, up and down from series to series; what is there is read out.
function makeWalkable(canvas, points, hidden, tell) {
  let [series, place] = [0, -1];
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "group");
  canvas.setAttribute("aria-label", "Figure: the arrow keys read its values");
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const [over, along] = steps[event.key] ?? [0, 0];
    if (!over && !along) return;
    event.preventDefault();
    const shown = points.map((_, number) => number).filter((number) => points[number].length && !hidden.has(number));
    if (!shown.length) return;
    const next = Math.max(0, shown.indexOf(series)) + over;
    series = shown[(next + shown.length) % shown.length];
    place = Math.min(Math.max(place + along, 0), points[series].length - 1);
    tell(points[series][place]);
  });
  canvas.addEventListener("blur", () => tell(null));
}

document.querySelectorAll("figure").forEach(makeReadable);
