"use strict";

// Names come from records, which anybody may have written: they are only ever set as text, never as markup.

const LIMIT = 150; // rows drawn at once; the rest on request
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// columns: label, whether it is text, value to sort by, text to show ------------------------------------------------

const spread = (row, name) => (row.measured[name] ? row.measured[name][2] : "–");
const measured = (name) => ({
  label: content.measures[name].label,
  value: (row) => (row.measured[name] ? row.measured[name][0] : -Infinity),
  show: (row) => spread(row, name),
});

function allColumns() {
  return [
    { label: "method", text: true, value: (row) => row.method, show: (row) => row.name },
    { label: "budget", value: (row) => row.place, show: (row) => row.budget },
    ...["accuracy", "difference"].map(measured),
    { label: "Pareto", text: true, value: (row) => -row.fronts.length, show: (row) => frontNames(row) },
    { label: "runs by seed", text: true, value: (row) => row.runs.length, show: null },
    ...["density", "bits", "synops_ac", "synops_mac", "stored_bits", "total_bits", "weight_bits", "energy_j",
      "compression_seconds", "peak_memory_bytes"].map(measured),
    { label: "calibration", value: (row) => row.calibration, show: (row) => (row.dense ? "" : String(row.calibration)) },
    { label: "table", text: true, value: (row) => row.table.title, show: (row) => row.table.title },
  ];
}

function frontNames(row) {
  const names = { synops: "operations", stored_bits: "memory" };
  return row.fronts.map((cost) => names[cost]).reverse().join(", ");
}

function searchable(row) {
  const shown = columns.filter((column) => column.show).map((column) => column.show(row));
  return ` ${shown.join(" ")}`.toLowerCase();
}

// state and what follows from it -------------------------------------------------------------------------------------

let content;
let columns;
let rows = [];
let styles;
const sorting = { column: null, descending: false };
let limit = LIMIT;

function chosen() {
  const table = byId("table").value;
  const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) =>
    (table === "all" || row.table.key === table)
    && (byId("controls").checked || !row.control || row.dense)
    && (!byId("front").checked || row.fronts.length)
    && words.every((word) => row.words.includes(` ${word}`))); // words match from their beginning: 0.1 is not in 10.1
}

function sorted(found) {
  if (!sorting.column) return found;
  const sign = sorting.descending ? -1 : 1;
  const { value } = sorting.column;
  return [...found].sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    return sign * (typeof left === "string" ? left.localeCompare(right) : left - right || 0);
  });
}

let typing; // a plot that waits to be drawn

function update() {
  clearTimeout(typing);
  drawSummaries();
  drawPlot(filter());
}

function filter() {
  const found = chosen();
  drawRows(sorted(found));
  byId("shown").textContent = `${found.length} of ${rows.length} rows`;
  return found;
}

// Whoever types sees rows at every letter; the plot, which takes many times as long, waits for the end of the word.
function typed() {
  clearTimeout(typing);
  const found = filter();
  typing = setTimeout(() => drawPlot(found), 250);
}

// table --------------------------------------------------------------------------------------------------------------

function drawHead() {
  const head = element("tr");
  for (const column of columns) {
    const button = element("button", { type: "button", textContent: column.label });
    button.addEventListener("click", () => sortBy(column));
    column.head = element("th", { scope: "col", className: column.text ? "text" : "" }, button);
    head.append(column.head);
  }
  byId("rows").tHead.replaceChildren(head);
}

function sortBy(column) {
  sorting.descending = sorting.column === column ? !sorting.descending : !column.text;
  sorting.column = column;
  for (const other of columns) other.head.removeAttribute("aria-sort");
  column.head.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
  drawRows(sorted(chosen()));
}

function drawRows(found) {
  byId("rows").tBodies[0].replaceChildren(...found.slice(0, limit).map((row) => (row.drawn ??= drawnRow(row))));
  byId("more").hidden = found.length <= limit;
  byId("more").textContent = `Show all ${found.length} rows`;
}

function drawnRow(row) {
  const drawn = element("tr", { className: row.dense ? "dense" : row.control ? "control" : "" });
  for (const column of columns) {
    const cell = element("td", { className: column.text ? "text" : "" });
    if (column.show) cell.textContent = column.show(row);
    else cell.append(...runLinks(row));
    if (column.label === "Pareto") cell.classList.add("on-front");
    drawn.append(cell);
  }
  return drawn;
}

function runLinks(row) {
  return row.runs.flatMap(([seed, id]) => [
    element("a", { href: `#run/${id}`, textContent: seed, ariaLabel: `${row.method}, seed ${seed}` }), " "]);
}

// plot ---------------------------------------------------------------------------------------------------------------

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]; // Okabe and Ito
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"];
const GREYS = ["#7d8894", "#9aa3ad", "#5f6b77"];
const forPlotly = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawPlot(found) {
  const axes = { x: byId("x").value, y: byId("y").value };
  const usable = found.filter((row) => row.measured[axes.x] && row.measured[axes.y]);
  const tables = new Set(usable.map((row) => row.table));
  const traces = [...grouped(usable, (row) => `${row.method}\n${row.table.key}`)].flatMap(([name, group]) =>
    [...grouped(group, (row) => row.kind)].sort(([a]) => (a.includes("bits") ? 1 : -1)).map(([, points], i) => (
      { ...curve(points, axes, tables.size > 1), legendgroup: name, showlegend: i === 0 })));
  if (tables.size === 1 && usable.length) traces.unshift(frontTrace(usable, axes)); // only what is comparable has a front
  traces.push(...reportedTrace(tables, axes));
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), family: "system-ui" },
    margin: { l: 55, r: 15, t: 10, b: 50 }, hovermode: "closest", legend: { orientation: "h", y: -0.18 },
    xaxis: { ...axis, title: { text: content.measures[axes.x].axis }, ...scaleOfX() },
    yaxis: { ...axis, title: { text: content.measures[axes.y].axis } },
    hoverlabel: { bgcolor: colour("--shade"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
  };
  Plotly.react("plot", traces, layout, {
    responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], // none of those that would send data away
  });
}

function scaleOfX() {
  return byId("log").checked ? { type: "log", dtick: "D2", exponentformat: "SI" } : { type: "linear", exponentformat: "SI" };
}

function grouped(items, key) {
  const groups = new Map();
  for (const item of items) {
    if (!groups.has(key(item))) groups.set(key(item), []);
    groups.get(key(item)).push(item);
  }
  return groups;
}

const place = (row, name) => row.measured[name][0] * content.measures[name].scale;

// A method looks the same in every table and under every filter.
function styleNumbers() {
  const numbers = new Map();
  for (const control of [false, true]) {
    const methods = new Set(rows.filter((row) => row.control === control && !row.dense).map((row) => row.method));
    [...methods].sort().forEach((method, i) => numbers.set(method, i));
  }
  return numbers;
}

function curve(group, { x, y }, manyTables) {
  const ordered = [...group].sort((a, b) => place(a, x) - place(b, x));
  const [{ method, control, dense, table, kind }] = group;
  const i = dense ? 0 : styles.get(method);
  const shade = dense ? colour("--ink") : control ? GREYS[i % GREYS.length] : COLOURS[i % COLOURS.length];
  return {
    name: forPlotly(manyTables ? `${method} – ${table.title}` : method),
    x: ordered.map((row) => place(row, x)), y: ordered.map((row) => place(row, y)),
    error_y: { array: ordered.map((row) => row.measured[y][1] * content.measures[y].scale), thickness: 1, width: 3 },
    customdata: ordered.map((row) => row.runs[0][1]), text: ordered.map((row) => hoverText(row, x, y)),
    hovertemplate: "%{text}<extra></extra>", mode: "lines+markers",
    line: { color: shade, dash: kind.includes("bits") ? "dot" : control ? "dash" : "solid" },
    marker: { color: shade, symbol: dense ? "star" : SYMBOLS[i % SYMBOLS.length], size: dense ? 13 : 8 },
  };
}

// What papers report of the same data set, on networks of their own: hollow, and in no table, front or count.
function reportedTrace(tables, { x, y }) {
  const texts = new Set();
  const points = [...tables].flatMap((table) => table.marks).filter(({ measured, text }) => {
    const fresh = x in measured && y in measured && !texts.has(text);
    texts.add(text);
    return fresh;
  });
  if (!points.length) return [];
  const at = (name) => points.map(({ measured }) => measured[name] * content.measures[name].scale);
  return [{
    name: "reported, not measured here", x: at(x), y: at(y), mode: "markers",
    text: points.map(({ text }) => `reported, not measured here<br>${forPlotly(text)}`), hovertemplate: "%{text}<extra></extra>",
    marker: { color: colour("--faint"), symbol: "circle-open", size: 10, line: { width: 1.5 } },
  }];
}

function hoverText(row, x, y) {
  const names = new Set(["accuracy", "difference", y, x, "synops", "stored_bits"]);
  const lines = [...names].map((name) => `${content.measures[name].label}: ${spread(row, name)}`);
  const budget = row.dense ? "" : ` at ${row.budget}`;
  return [`<b>${forPlotly(row.method)}${budget}</b>`, ...lines, `seeds: ${row.runs.length}`].join("<br>");
}

// Of the rows that the filters leave and of the axes chosen, so that it cannot be told beforehand.
function frontTrace(found, { x, y }) {
  const front = [];
  let best = -Infinity;
  for (const row of [...found].sort((a, b) => place(a, x) - place(b, x) || place(b, y) - place(a, y))) {
    if (place(row, y) > best) { front.push(row); best = place(row, y); }
  }
  return {
    name: "Pareto front", x: front.map((row) => place(row, x)), y: front.map((row) => place(row, y)), mode: "lines",
    line: { shape: "hv", width: 5, color: colour("--front") }, opacity: 0.45, hoverinfo: "skip",
  };
}

// in short -----------------------------------------------------------------------------------------------------------

function drawSummaries() {
  const shown = content.tables.filter((table) => [table.key, "all"].includes(byId("table").value));
  byId("summary-tables").replaceChildren(...shown.slice(0, 20).flatMap(drawnSummary));
}

function drawnSummary(table) {
  const parts = [element("h3", { textContent: table.title }), simpleTable(table.summary.heads, table.summary.rows)];
  if (table.reported.length) {
    parts.push(element("p", { className: "note", textContent: "Reported by papers, on networks and data of their own, not measured here:" }),
      element("ul", {}, ...table.reported.map((text) => element("li", { textContent: text }))));
  }
  return parts;
}

function simpleTable(heads, cells) {
  const headRow = element("tr", {}, ...heads.map((text, i) => element("th", { scope: "col", textContent: text, className: i ? "" : "text" })));
  const body = cells.map((line) => element("tr", {}, ...line.map((cell, i) =>
    (cell instanceof Node ? cell : element("td", { textContent: cell, className: i ? "" : "text" })))));
  return element("div", { className: "scroll", tabIndex: 0 }, element("table", {}, element("thead", {}, headRow), element("tbody", {}, ...body)));
}

// one run ------------------------------------------------------------------------------------------------------------

function drawRun() {
  const id = location.hash.startsWith("#run/") ? location.hash.slice(5) : null;
  const run = id && Object.hasOwn(content.runs, id) ? content.runs[id] : null;
  byId("run").hidden = !run;
  if (!run) return;
  byId("run-title").textContent = `Run ${id}: ${run.label}`;
  byId("run-body").replaceChildren(
    definitions({ suite: run.suite, ...run.facts }),
    element("h3", { textContent: "Layers, per sample" }), drawnLayers(run.layers),
    element("h3", { textContent: "Made with" }), definitions(flat(content.environments[run.environment])),
    element("h3", { textContent: "To run it again" }), copyable(run.command),
  );
  byId("run").scrollIntoView();
  byId("run").focus({ preventScroll: true });
}

function definitions(facts) {
  return element("dl", {}, ...Object.entries(facts).flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: String(value) })]));
}

function flat(facts, prefix = "") {
  return Object.fromEntries(Object.entries(facts).flatMap(([name, value]) =>
    (value && typeof value === "object" ? Object.entries(flat(value, `${name} `)) : [[prefix + name, value]])));
}

function drawnLayers({ heads, rows: layers, bars }) {
  const drawn = (text, head, place) => {
    if (!Object.hasOwn(bars, head)) return text;
    const cell = element("td", { className: "bar", textContent: text });
    cell.style.setProperty("--share", `${bars[head][place]}%`);
    return cell;
  };
  return simpleTable(heads, layers.map((layer, place) => layer.map((text, i) => drawn(text, heads[i], place))));
}

function copyable(text) {
  const button = element("button", { type: "button", textContent: "Copy" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return element("div", {}, element("pre", { textContent: text, tabIndex: 0 }), button);
}

// beginning ----------------------------------------------------------------------------------------------------------

function fillChoices() {
  const option = (value, text) => element("option", { value, textContent: text });
  const tables = content.tables.map((table) => option(table.key, table.title));
  byId("table").replaceChildren(...tables, option("all", "all tables (not comparable with each other)"));
  byId("x").replaceChildren(...content.costs.map((name) => option(name, content.measures[name].axis)));
  byId("y").replaceChildren(...content.gains.map((name) => option(name, content.measures[name].axis)));
}

function drawApart() {
  byId("apart").hidden = !content.apart.length;
  byId("apart-list").replaceChildren(...content.apart.map((item) =>
    element("li", { textContent: [item.run, `${item.label}:`, item.reason].filter(Boolean).join(" ") })));
}

async function begin() {
  content = JSON.parse(await unpacked("content"));
  document.head.append(element("script", { textContent: await unpacked("plotly") }));
  rows = content.tables.flatMap((table) => table.rows.map((row) => ({ ...row, table })));
  columns = allColumns();
  for (const row of rows) row.words = searchable(row);
  styles = styleNumbers();
  byId("energy").textContent = `An estimate from the counts, under the profile ${content.energy.profile}. ${content.energy.uncertainty}`;
  fillChoices();
  drawHead();
  drawApart();
  update();
  for (const id of ["table", "controls", "front", "x", "y", "log"]) byId(id).addEventListener("change", update);
  byId("words").addEventListener("input", typed);
  for (const form of ["filters", "axes"]) byId(form).addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => { limit = Infinity; drawRows(sorted(chosen())); });
  byId("plot").on("plotly_click", ({ points: [point] }) => { if (point.customdata) location.hash = `run/${point.customdata}`; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  addEventListener("hashchange", drawRun);
  drawRun();
  document.documentElement.dataset.ready = "yes";
}

begin();
