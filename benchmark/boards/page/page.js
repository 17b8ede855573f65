"use strict";

// Names come from records, which anybody may have written: they are only ever set as text, never as markup.

const byId = (id) => document.getElementById(id);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const link = (href, text, properties = {}) => element("a", { href, textContent: text, ...properties });
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function grouped(items, key) {
  const groups = new Map();
  for (const item of items) {
    if (!groups.has(key(item))) groups.set(key(item), []);
    groups.get(key(item)).push(item);
  }
  return groups;
}

function simpleTable(heads, cells, texts = 1) {
  const headRow = element("tr", {}, ...heads.map((text, i) =>
    element("th", { scope: "col", textContent: text, className: i < texts ? "text" : "" })));
  const body = cells.map((line) => element("tr", {}, ...line.map((cell, i) =>
    (cell instanceof HTMLTableCellElement ? cell : element("td", { className: i < texts ? "text" : "" }, cell)))));
  const table = element("table", {}, element("thead", {}, headRow), element("tbody", {}, ...body));
  const scroll = element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: heads.join(", ") }, table);
  return scroll;
}

// parts: the page's data and the plotting library, each unpacked when it is first asked for ---------------------------

const PARTS = "leaderboard";
const asked = {};
window.parts ??= {};

const unpacked = (name) => (asked[name] ??= unpack(name));

async function unpack(name) {
  if (!parts[name]) await loaded(`${PARTS}/${name}.js`);
  const bytes = Uint8Array.from(atob(parts[name]), (letter) => letter.charCodeAt(0));
  delete parts[name];
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function loaded(src) {
  return new Promise((resolve, reject) => {
    const failed = () => reject(new Error(`${src} is missing: it belongs beside this page`));
    document.head.append(element("script", { src, onload: resolve, onerror: failed }));
  });
}

async function plotting() {
  asked.library ??= unpacked("plotly").then((text) => { document.head.append(element("script", { textContent: text })); });
  await asked.library;
}

async function details() {
  asked.details ??= unpacked("runs").then((text) => JSON.parse(text));
  return asked.details;
}

// the address says what is seen: #/table/KEY?x=energy_j --------------------------------------------------------------

let content;
let rows = [];

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view = "", ...names] = path.split("/");
  return { view: view || "front", names: names.map(decodeURIComponent), query: new URLSearchParams(query) };
}

function addressOf(view, names = [], query = null) {
  const words = query ? query.toString() : "";
  return `#/${[view, ...names.map(encodeURIComponent)].join("/")}${words ? `?${words}` : ""}`;
}

const VIEWS = {
  front: () => drawFront(), table: (names, query) => drawTable(names, query), methods: () => drawMethods(),
  method: (names) => drawMethod(names), run: (names) => drawRuns(names), compare: (names) => drawRuns(names),
  add: () => {},
};

let here = null; // the view and names drawn last

function trouble(words) {
  byId("trouble").textContent = words;
  byId("trouble").hidden = false;
}

async function draw() {
  try {
    await drawn();
  } catch (error) {
    trouble(error.message);
  }
}

async function drawn() {
  byId("trouble").hidden = true;
  const { view, names, query } = address();
  const known = Object.hasOwn(VIEWS, view) ? view : "front";
  await VIEWS[known](names, query);
  const section = known === "compare" ? "run" : known;
  for (const part of document.querySelectorAll("[data-view]")) part.hidden = part.dataset.view !== section;
  const page = { method: "methods", run: "table", compare: "table" }[known] ?? known;
  for (const item of document.querySelectorAll("[data-page]")) {
    if (item.dataset.page === page) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
  const there = `${view}/${names.join("/")}`;
  if (here !== null && here !== there) {
    const shown = document.querySelector(`[data-view=${section}]`);
    (section === "run" ? shown : byId("main")).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  here = there;
  if (known === "table") await drawPlot();
}

async function begin() {
  content = JSON.parse(await unpacked("content"));
  rows = content.tables.flatMap((table) => table.rows.map((row) => ({ ...row, table })));
  content.ofMethod = Object.fromEntries(content.methods.map((method) => [method.name, method]));
  beginTable();
  addEventListener("hashchange", () => draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  await draw();
  document.documentElement.dataset.ready = "yes";
}
