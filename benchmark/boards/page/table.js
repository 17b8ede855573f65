
// columns: label, whether it is text, value to sort by, text to show ------------------------------------------------

const LIMIT = 150; // rows drawn at once; the rest on request
const USUAL = ["method", "budget", "place", "accuracy", "difference", "interval", "synops", "stored_bits", "fronts", "runs"];
let columns;

const spread = (row, name) => (row.measured[name] ? row.measured[name][2] : "–");
const measured = (name) => ({
  name, label: content.measures[name].label,
  value: (row) => (row.measured[name] ? row.measured[name][0] : -Infinity), show: (row) => spread(row, name),
});

function allColumns() {
  const rank = (row) => (row.place ? Number.parseInt(row.place, 10) : 0);
  return [
    { name: "method", label: "method", text: true, value: (row) => `${familyOf(row)} ${row.method}`, show: (row) => row.name, cell: methodCell },
    { name: "budget", label: "budget", value: (row) => row.order, show: (row) => row.budget },
    { name: "place", label: "place", rising: true, value: rank, show: (row) => row.place },
    ...["accuracy", "difference"].map(measured),
    { name: "interval", label: "test set [points]", value: (row) => row.interval[0], show: (row) => row.interval[1] },
    ...["synops", "stored_bits"].map(measured),
    { name: "fronts", label: "Pareto", text: true, value: (row) => -row.fronts.length, show: frontNames },
    { name: "runs", label: "runs by seed", text: true, value: (row) => row.runs.length,
      show: (row) => row.runs.map(([seed]) => seed).join(" "), cell: runCell },
    ...["density", "bits", "synops_ac", "synops_mac", "total_bits", "weight_bits", "energy_j", "compression_seconds",
      "peak_memory_bytes", "spike_mismatch", "van_rossum", "earth_mover", "dead_neurons", "saturated_neurons"].map(measured),
    { name: "calibration", label: "calibration", value: (row) => row.calibration,
      show: (row) => (row.dense ? "" : String(row.calibration)) },
  ];
}

function frontNames(row) {
  const names = { synops: "operations", stored_bits: "memory" };
  return row.fronts.map((cost) => names[cost]).reverse().join(", ");
}

// what is seen of a table: all of it stands in the address -----------------------------------------------------------

const state = { table: null, query: new URLSearchParams(), limit: LIMIT, chosen: new Set() };
const CHECKS = { log: true, controls: true, front: false, variants: false };

function shownColumns() {
  const names = state.query.has("columns") ? state.query.get("columns").split(",") : USUAL;
  return columns.filter((column) => column.name === "method" || names.includes(column.name));
}

function drawTable([key], query) {
  const table = content.tables.find((other) => other.key === key)
    ?? content.tables.find((other) => other.key === content.networks[0]?.tables[0]);
  if (!table) return;
  if (key && key !== table.key) trouble(`There is no table ${key} here (any more): this is another one.`);
  if (state.table !== table) { state.limit = LIMIT; state.chosen.clear(); }
  state.table = table;
  state.query = query;
  byId("table-title").textContent = table.title;
  drawTabs(table);
  readControls(query);
  drawHead();
  drawFound();
  drawSummary(table);
}

function readControls(query) {
  for (const [name, usual] of Object.entries(CHECKS)) byId(name).checked = query.has(name) ? query.get(name) === "1" : usual;
  byId("x").value = content.costs.includes(query.get("x")) ? query.get("x") : content.costs[0];
  byId("y").value = content.gains.includes(query.get("y")) ? query.get("y") : content.gains[0];
  if (document.activeElement !== byId("words")) byId("words").value = query.get("words") ?? "";
  const shown = new Set(shownColumns().map((column) => column.name));
  for (const box of byId("columns").querySelectorAll("input")) box.checked = shown.has(box.value);
}

// Writes what the reader has chosen into the address; what is as usual is left out of it.
function choose(changes, redraw = draw) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) state.query.delete(name);
    else state.query.set(name, value);
  }
  history.replaceState(null, "", addressOf("table", [state.table.key], state.query));
  return redraw();
}

function drawTabs(table) {
  const network = content.networks.find((other) => other.key === table.network);
  const tab = (key, text, current) => link(addressOf("table", [key], state.query), text, current ? { ariaCurrent: "page" } : {});
  const sets = grouped(content.networks, (other) => other.data);
  byId("data-tabs").replaceChildren(...[...sets].map(([data, own]) => tab(own[0].tables[0], data, data === network.data)));
  byId("network-tabs").replaceChildren(...sets.get(network.data).map((other) => tab(other.tables[0], other.network, other === network)));
  byId("division-tabs").replaceChildren(...network.tables.map((key) =>
    tab(key, content.tables.find((other) => other.key === key).division, key === table.key)));
}

// rows ---------------------------------------------------------------------------------------------------------------

function searched(row) {
  row.words ??= ` ${columns.map((column) => column.show(row)).join(" ")}`.toLowerCase();
  return row.words;
}

function opened() {
  return new Set((state.query.get("open") ?? "").split(",").filter(Boolean));
}

function found() {
  const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const open = opened();
  const folded = (row) => row.variant && !byId("variants").checked && !words.length && !open.has(row.family);
  return rows.filter((row) => row.table === state.table
    && (byId("controls").checked || !row.control || row.dense)
    && (!byId("front").checked || row.fronts.length)
    && !folded(row)
    && words.every((word) => searched(row).includes(` ${word}`))); // words match from their beginning: 0.1 is not in 10.1
}

function sorting() {
  const [, sign, name] = /^(-?)(.*)$/.exec(state.query.get("sort") ?? "");
  return { column: columns.find((column) => column.name === name), descending: sign === "-" };
}

function sorted(list) {
  const { column, descending } = sorting();
  if (!column) return list;
  return [...list].sort((a, b) => {
    const [left, right] = [column.value(a), column.value(b)];
    return (descending ? -1 : 1) * (typeof left === "string" ? left.localeCompare(right) : left - right || 0);
  });
}

function drawFound() {
  const list = found();
  drawRows(sorted(list));
  const all = state.table.rows.length;
  byId("shown").textContent = `${list.length} of ${all} rows`;
}

function drawHead() {
  const { column: by, descending } = sorting();
  const head = element("tr");
  for (const column of shownColumns()) {
    const button = element("button", { type: "button", textContent: column.label });
    button.addEventListener("click", () => sortBy(column));
    const cell = element("th", { scope: "col", className: column.text ? "text" : "" }, button);
    if (column === by) cell.ariaSort = descending ? "descending" : "ascending";
    head.append(cell);
  }
  byId("rows").tHead.replaceChildren(head);
}

function sortBy(column) {
  const now = sorting();
  const descending = now.column === column ? !now.descending : !column.text && !column.rising;
  choose({ sort: `${descending ? "-" : ""}${column.name}` }, () => { drawHead(); drawFound(); });
  for (const head of byId("rows").tHead.querySelectorAll("th[aria-sort] button")) head.focus();
}

function drawRows(list) {
  byId("rows").tBodies[0].replaceChildren(...list.slice(0, state.limit).map(drawnRow));
  byId("more").hidden = list.length <= state.limit;
  byId("more").textContent = `Show all ${list.length} rows`;
}

function drawnRow(row) {
  const drawn = element("tr", { className: row.dense ? "dense" : row.control ? "control" : "" });
  for (const column of shownColumns()) {
    const cell = element("td", { className: column.text ? "text" : "" });
    cell.append(...(column.cell ? column.cell(row) : [column.show(row)]));
    if (column.name === "fronts") cell.classList.add("on-front");
    if (column.name === "place" && row.place.startsWith("1")) cell.classList.add("first");
    drawn.append(cell);
  }
  return drawn;
}

function methodCell(row) {
  if (row.dense) return [row.name];
  const name = link(addressOf("method", [row.family]), "");
  const [plain, bracket, options] = row.name.split(/(\[.*)/);
  name.append(plain, ...(bracket ? [element("wbr"), bracket, options] : [])); // a narrow column breaks before the options
  if (row.variant) return [element("span", { className: "variant" }, name)];
  const hidden = hiddenVariants(row);
  const named = element("span", { className: "named" }, swatch(content.ofMethod[row.family]), name);
  if (!hidden) return [named];
  const open = opened();
  const isOpen = open.has(row.family);
  const fold = element("button", { type: "button", className: "fold", textContent: isOpen ? "−" : `+${hidden}`,
    ariaExpanded: String(isOpen), ariaLabel: `${hidden} variants of ${row.family}` });
  fold.addEventListener("click", () => {
    if (isOpen) open.delete(row.family);
    else open.add(row.family);
    choose({ open: open.size ? [...open].join(",") : null });
  });
  return [named, " ", fold];
}

function hiddenVariants(row) {
  if (byId("variants").checked) return 0;
  return row.table.rows.filter((other) => other.variant && other.family === row.family && other.budget === row.budget).length;
}

function runCell(row) {
  const [[, first]] = row.runs;
  const box = element("input", { type: "checkbox", checked: state.chosen.has(first), ariaLabel: `compare ${row.method} ${row.budget}` });
  box.addEventListener("change", () => {
    if (box.checked) state.chosen.add(first);
    else state.chosen.delete(first);
    offerComparison();
  });
  return [element("label", { className: "target" }, box), ...row.runs.flatMap(([seed, id]) => [" ",
    link(addressOf("run", [id]), seed, { className: "target", ariaLabel: `${row.method} ${row.budget}, seed ${seed}` })])];
}

function offerComparison() {
  const offer = byId("compare-link");
  offer.hidden = state.chosen.size < 2;
  offer.href = addressOf("compare", [...state.chosen]);
  offer.textContent = `Compare ${state.chosen.size} runs`;
}

// what is seen, as a file --------------------------------------------------------------------------------------------

function seen() {
  const names = shownColumns().map((column) => column.name);
  return sorted(found()).map((row) => Object.fromEntries(names.flatMap((name) => plainCells(row, name))));
}

function plainCells(row, name) {
  if (name in content.measures) {
    const [mean, deviation] = row.measured[name] ?? ["", ""];
    return [[name, mean], ...(row.runs.length > 1 ? [[`${name}_std`, deviation]] : [[`${name}_std`, ""]])];
  }
  const plain = { method: row.method, runs: row.runs.map(([, id]) => id).join(" "), fronts: row.fronts.join(" "), interval: row.interval[0] };
  return [[name, plain[name] ?? row[name]]];
}

// A cell that a spreadsheet would take for a formula begins with an apostrophe.
function csvCell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function asCsv(list) {
  const heads = Object.keys(list[0] ?? {});
  return [heads, ...list.map((row) => heads.map((head) => row[head]))].map((line) => line.map(csvCell).join(",")).join("\n") + "\n";
}

function save(name, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  link(href, name, { download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

// in short -----------------------------------------------------------------------------------------------------------

function drawSummary(table) {
  const parts = [simpleTable(table.summary.heads, table.summary.rows)];
  if (table.earlier) {
    parts.push(element("p", { className: "note", textContent: "What older versions of methods gave, ranked with nothing:" }),
      simpleTable(table.earlier.heads, table.earlier.rows));
  }
  if (table.reported.length) {
    parts.push(element("p", { className: "note", textContent: "Reported by papers, on networks and data of their own, not measured here:" }),
      element("ul", {}, ...table.reported.map((text) => element("li", { textContent: text }))));
  }
  byId("summary-tables").replaceChildren(...parts);
}

// beginning ----------------------------------------------------------------------------------------------------------

function beginTable() {
  columns = allColumns();
  const option = (value, text) => element("option", { value, textContent: text });
  byId("x").replaceChildren(...content.costs.map((name) => option(name, content.measures[name].axis)));
  byId("y").replaceChildren(...content.gains.map((name) => option(name, content.measures[name].axis)));
  byId("columns").replaceChildren(...columns.slice(1).map((column) =>
    element("label", { className: "check" }, element("input", { type: "checkbox", value: column.name }), ` ${column.label}`)));
  byId("energy").textContent = `An estimate from the counts, under the profile ${content.energy.profile}. ${content.energy.uncertainty}`;
  for (const [name, usual] of Object.entries(CHECKS)) {
    byId(name).addEventListener("change", () => choose({ [name]: byId(name).checked === usual ? null : String(Number(byId(name).checked)) }));
  }
  for (const name of ["x", "y"]) byId(name).addEventListener("change", () => choose({ [name]: byId(name).value }));
  byId("columns").addEventListener("change", () => {
    const names = [...byId("columns").querySelectorAll("input:checked")].map((box) => box.value);
    choose({ columns: names.join(",") === USUAL.slice(1).join(",") ? null : names.join(",") }, () => { drawHead(); drawFound(); });
  });
  byId("words").addEventListener("input", typed);
  for (const form of ["filters", "axes"]) byId(form).addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => { state.limit = Infinity; drawFound(); });
  byId("csv").addEventListener("click", () => save(`${state.table.key}.csv`, "text/csv", asCsv(seen())));
  byId("json").addEventListener("click", () => save(`${state.table.key}.json`, "application/json", JSON.stringify(seen(), null, 1)));
}

let typing; // a plot that waits to be drawn

// Whoever types sees rows at every letter; the plot, which takes many times as long, waits for the end of the word.
function typed() {
  clearTimeout(typing);
  choose({ words: byId("words").value || null }, drawFound);
  typing = setTimeout(drawPlot, 250);
}
