
// plot ---------------------------------------------------------------------------------------------------------------

const forPlotly = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

async function drawPlot() {
  await plotting();
  const axes = { x: byId("x").value, y: byId("y").value };
  const usable = found().filter((row) => row.measured[axes.x] && row.measured[axes.y]);
  const traces = [...grouped(usable, (row) => row.method)].sort(byFamily).flatMap(([name, group]) =>
    [...grouped(group, (row) => row.kind)].sort(([a]) => (a.includes("bits") ? 1 : -1)).map(([, points], i) => (
      { ...curve(points, axes), legendgroup: name, showlegend: i === 0 })));
  if (usable.length) traces.unshift(frontTrace(usable, axes));
  traces.push(...reportedTrace(state.table, axes));
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), family: "system-ui" },
    margin: { l: 55, r: 15, t: 10, b: 60 }, hovermode: "closest",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" },
    xaxis: { ...axis, title: { text: content.measures[axes.x].axis }, ...scaleOfX() },
    yaxis: { ...axis, title: { text: content.measures[axes.y].axis } },
    hoverlabel: { bgcolor: colour("--shade"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
  };
  await Plotly.react("plot", traces, layout, {
    responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], // none of those that would send data away
  });
  if (!byId("plot").heard) {
    byId("plot").heard = true;
    byId("plot").on("plotly_click", ({ points: [point] }) => { if (point.customdata) location.hash = addressOf("run", [point.customdata]); });
  }
}

const familyOf = (row) => (row.dense ? "" : `${row.control ? 1 : 0}${content.ofMethod[row.family].family}`);
const byFamily = ([, [a]], [, [b]]) => familyOf(a).localeCompare(familyOf(b)) || a.method.localeCompare(b.method);

function scaleOfX() {
  return byId("log").checked ? { type: "log", dtick: "D2", exponentformat: "SI" } : { type: "linear", exponentformat: "SI" };
}

const place = (row, name) => row.measured[name][0] * content.measures[name].scale;

// A method looks the same in every table and under every filter; its variants are thinner and hollow.
function curve(group, { x, y }) {
  const ordered = [...group].sort((a, b) => place(a, x) - place(b, x));
  const [{ method, family, control, dense, variant, kind }] = group;
  const look = dense ? { colour: colour("--ink"), symbol: "star" } : content.ofMethod[family];
  return {
    name: forPlotly(method),
    x: ordered.map((row) => place(row, x)), y: ordered.map((row) => place(row, y)),
    error_y: { array: ordered.map((row) => row.measured[y][1] * content.measures[y].scale), thickness: 1, width: 3 },
    customdata: ordered.map((row) => row.runs[0][1]), text: ordered.map((row) => hoverText(row, x, y)),
    hovertemplate: "%{text}<extra></extra>", mode: "lines+markers",
    line: { color: look.colour, width: variant ? 1 : 2, dash: kind.includes("bits") ? "dot" : control ? "dash" : "solid" },
    marker: { color: look.colour, symbol: variant ? `${look.symbol}-open` : look.symbol, size: dense ? 13 : 8 },
  };
}

// What papers report of the same data set, on networks of their own: hollow, and in no table, front or count.
function reportedTrace(table, { x, y }) {
  const points = table.marks.filter(({ measured: known }) => x in known && y in known);
  if (!points.length) return [];
  const at = (name) => points.map(({ measured: known }) => known[name] * content.measures[name].scale);
  return [{
    name: "reported, not measured here", x: at(x), y: at(y), mode: "markers",
    text: points.map(({ text }) => `reported, not measured here<br>${forPlotly(text)}`), hovertemplate: "%{text}<extra></extra>",
    marker: { color: colour("--faint"), symbol: "pentagon-open", size: 11, line: { width: 1.5 } },
  }];
}

function hoverText(row, x, y) {
  const names = new Set(["accuracy", "difference", y, x, "synops", "stored_bits"]);
  const lines = [...names].map((name) => `${content.measures[name].label}: ${spread(row, name)}`);
  const budget = row.dense ? "" : ` at ${row.budget}`;
  return [`<b>${forPlotly(row.method)}${budget}</b>`, ...lines, `seeds: ${row.runs.length}`].join("<br>");
}

// Of the rows that the filters leave and of the axes chosen, so that it cannot be told beforehand.
function frontTrace(list, { x, y }) {
  const front = [];
  let best = -Infinity;
  for (const row of [...list].sort((a, b) => place(a, x) - place(b, x) || place(b, y) - place(a, y))) {
    if (place(row, y) > best) { front.push(row); best = place(row, y); }
  }
  return {
    name: "Pareto front", x: front.map((row) => place(row, x)), y: front.map((row) => place(row, y)), mode: "lines",
    line: { shape: "hv", width: 5, color: colour("--front") }, opacity: 0.45, hoverinfo: "skip",
  };
}
