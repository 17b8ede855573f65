
// overview -----------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function drawFront() {
  const runs = new Set(rows.flatMap((row) => row.runs.map(([, id]) => id))).size;
  byId("about").textContent = `${runs.toLocaleString("en")} runs of ${content.methods.length} methods on `
    + `${content.networks.length} networks, each measured the same way: the same dense checkpoint, the same calibration `
    + "data, the same test data, exact counts.";
  byId("cards").replaceChildren(...content.networks.map(card));
  byId("apart").hidden = !content.apart.length;
  byId("apart-count").textContent = `${content.apart.length} runs, and why`;
  byId("apart-list").replaceChildren(...content.apart.map((item) =>
    element("li", { textContent: [item.run, `${item.label}:`, item.reason].filter(Boolean).join(" ") })));
}

function card(network) {
  const [first] = network.tables;
  const dense = network.dense ? `dense: ${network.dense.accuracy} % in ${network.dense.stored_bits}` : "no dense run";
  return element("article", { className: "card" },
    element("h2", {}, link(addressOf("table", [first]), network.title)),
    element("p", { className: "note", textContent: `${dense}; ${network.samples.toLocaleString("en")} test samples` }),
    picture(first),
    element("h3", { textContent: `Who leads, ${network.division}` }),
    element("dl", { className: "leaders" }, ...network.leaders.flatMap(leader)),
    element("p", { className: "more" }, ...network.tables.map((key) => divisionLink(key))));
}

function leader({ question, row, ties }) {
  const answer = element("dd", {});
  if (!row) answer.append("no run yet");
  else {
    answer.append(link(addressOf("method", [row.family]), row.name), row.budget ? ` at ${row.budget}` : "");
    const points = row.difference ? ` (${row.difference})` : "";
    answer.append(element("span", { className: "figures", textContent: `${row.accuracy} %${points}, ${row.stored_bits}, ${row.synops} operations` }));
    if (ties) answer.append(element("span", { className: "ties", textContent: `no worse beyond noise: ${ties}` }));
  }
  return [element("dt", { textContent: question }), answer];
}

function divisionLink(key) {
  const table = content.tables.find((other) => other.key === key);
  return link(addressOf("table", [key]), table.division);
}

// A small trade-off: memory across, accuracy up; the table behind the card has it in full.
function picture(key) {
  const shown = rows.filter((row) => row.table.key === key && !row.variant && row.measured.stored_bits);
  const xs = shown.map((row) => Math.log(row.measured.stored_bits[0] || 1));
  const ys = shown.map((row) => row.measured.accuracy[0]);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("viewBox", "0 0 300 96");
  drawn.setAttribute("role", "img");
  drawn.setAttribute("aria-label", "accuracy over memory");
  shown.forEach((row, i) => drawn.append(dot(row, 8 + 284 * (xs[i] - left) / (right - left || 1), 88 - 80 * (ys[i] - low) / (high - low || 1))));
  return drawn;
}

// Marks of families, of about one unit to each side.
const SHAPES = {
  circle: "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z", square: "M-.9-.9h1.8v1.8h-1.8z", diamond: "M0-1.2 1.2 0 0 1.2-1.2 0z",
  "triangle-up": "M0-1.1 1.1.9h-2.2z", "triangle-down": "M0 1.1 1.1-.9h-2.2z",
  cross: "M-.4-1.1h.8v.7h.7v.8h-.7v.7h-.8v-.7h-.7v-.8h.7z", x: "M-1-.6-.6-1 0-.4.6-1 1-.6.4 0 1 .6.6 1 0 .4-.6 1-1 .6-.4 0z",
  star: "M0-1.3.3-.4 1.2-.4.5.2.8 1.1 0 .6-.8 1.1-.5.2-1.2-.4-.3-.4z",
};

function dot(row, x, y) {
  const point = document.createElementNS(SVG, "path");
  point.setAttribute("d", SHAPES[row.dense ? "star" : content.ofMethod[row.family].symbol]);
  point.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${row.dense ? 6 : 3.5})`);
  point.style.fill = row.dense ? "var(--ink)" : content.ofMethod[row.family].colour;
  const title = document.createElementNS(SVG, "title");
  title.textContent = `${row.method} ${row.budget}`;
  point.append(title);
  return point;
}

// methods ------------------------------------------------------------------------------------------------------------

function drawMethods() {
  byId("methods-body").replaceChildren(...[...grouped(content.methods, (method) => method.family)].flatMap(([family, own]) => [
    element("h2", { textContent: family }),
    element("ul", { className: "plain" }, ...own.map((method) =>
      element("li", {}, swatch(method), link(addressOf("method", [method.name]), method.name), ` ${method.summary}`))),
  ]));
}

function swatch(method) {
  const shown = element("span", { className: `swatch ${method.symbol}`, ariaHidden: "true" });
  shown.style.setProperty("--of", method.colour);
  return shown;
}

function claimsOf({ claims }) {
  if (!claims.length) return [];
  const lines = claims.map(({ id, says, verdict }) => element("li", {},
    element("span", { className: `verdict ${verdict.replaceAll(" ", "-")}`, textContent: verdict }), " ",
    link(`claims.html#${encodeURIComponent(id)}`, says)));
  return [element("h2", { textContent: "Claims about it, and whether they held here" }), element("ul", { className: "plain" }, ...lines)];
}

function drawMethod([name]) {
  const method = Object.hasOwn(content.ofMethod, name) ? content.ofMethod[name] : null;
  byId("method-title").textContent = method ? method.name : `No method ${name}`;
  if (!method) { byId("method-body").replaceChildren(); return; }
  const options = Object.entries(method.options);
  const heads = ["variant", "place", ...content.tables[0].summary.heads.slice(1)];
  const standing = [...grouped(method.standing, (line) => line.table)].flatMap(([table, lines]) => [
    element("h3", {}, link(addressOf("table", [table]), lines[0].title)),
    simpleTable(heads, lines.map(({ cells: [rank, label, ...numbers] }) => [label, rank, ...numbers])),
  ]);
  byId("method-body").replaceChildren(
    element("p", {}, swatch(method), method.summary),
    element("p", { className: "note", textContent: [method.class, `family: ${method.family}`, `version ${method.version}`].filter(Boolean).join(" · ") }),
    element("h2", { textContent: "How to use it" }),
    ...Object.entries(method.usage).flatMap(([what, lines]) => [element("p", { className: "note", textContent: what }), copyable(lines)]),
    ...(Object.keys(method.usage).length ? [] : [element("p", { className: "note", textContent: "It comes from another package, which says how." })]),
    element("h2", { textContent: "Where it stands" }),
    element("p", { className: "note", textContent: `On this board: ${method.variants.join(", ")}` }),
    element("p", { className: "note", textContent: "Place: by mean accuracy over operations, among the methods and variants of the table." }),
    ...standing,
    ...claimsOf(method),
    element("h2", { textContent: "Options" }),
    options.length ? simpleTable(["option", "as its plain runs have it"], options.map((pair) => pair), 2)
      : element("p", { className: "note", textContent: "Older records do not tell its options; it stood at its defaults." }),
  );
}
