
// runs: one beside its dense network, or several beside each other ---------------------------------------------------

async function drawRuns(ids) {
  const { runs, environments } = await details();
  const known = ids.filter((id) => Object.hasOwn(runs, id));
  const shown = known.map((id) => [id, runs[id]]);
  const alone = shown.length === 1;
  byId("run-title").textContent = alone ? shown[0][1].name : shown.length ? `${shown.length} runs` : `No run ${ids.join(", ")}`;
  const subjects = new Set(shown.map(([, run]) => [run.subject, run.condition].filter(Boolean).join(" · ")));
  byId("run-back").replaceChildren([...subjects].join("; "), element("br"), link(backTo(known[0]), "Back to the table"));
  if (!shown.length) { byId("run-body").replaceChildren(); return; }
  const dense = denseBeside(shown, runs);
  byId("run-body").replaceChildren(
    ...(alone ? [facts(shown[0])] : differences([...shown, ...dense])),
    element("h2", { textContent: dense.length ? "Layers, per sample, beside the dense network's" : "Layers, per sample" }),
    layers([...shown, ...dense], "layers"),
    ...spikes([...shown, ...dense]),
    ...(alone ? provenance(shown[0][1], environments) : []),
  );
}

// The dense network that all of the runs started from, unless it is one of them, or they started from several.
function denseBeside(shown, runs) {
  const known = new Set(shown.map(([, run]) => run.dense).filter(Boolean));
  const [id] = known;
  return known.size === 1 && !shown.some(([other]) => other === id) ? [[id, runs[id]]] : [];
}

function backTo(id) {
  const row = rows.find((other) => other.runs.some(([, run]) => run === id));
  return row ? addressOf("table", [row.table.key], state.query) : addressOf("table");
}

const facts = ([id, run]) => definitions({ run: id, suite: run.suite, ...run.facts });

// What differs between runs, and folded below it what does not.
function differences(shown) {
  const names = [...new Set(shown.flatMap(([, run]) => Object.keys(run.facts)))];
  const lines = names.map((name) => [name, ...shown.map(([, run]) => String(run.facts[name] ?? "–"))]);
  const differs = ([, ...texts]) => new Set(texts).size > 1;
  const heads = ["what differs", ...shown.map(([id, run]) => (run.name === "dense" ? run.name : `${run.name} (${id.slice(0, 6)})`))];
  const table = simpleTable(heads, lines.filter(differs));
  table.firstChild.classList.add("facts");
  const same = Object.fromEntries(lines.filter((line) => !differs(line)).map(([name, text]) => [name, text]));
  return [table, element("details", { className: "note" }, element("summary", { textContent: "The same for all of them" }), definitions(same))];
}

function spikes(shown) {
  const known = shown.filter(([, run]) => run.spikes);
  if (!known.length) return [];
  const samples = [...new Set(known.map(([, run]) => run.spikes.samples))].join(", ");
  return [element("h2", { textContent: `Spikes beside the dense network's, on ${samples} test samples` }), layers(known, "spikes")];
}

// One line a layer and run; a column's bars are as long as their share of the column's longest, over all runs shown.
function layers(shown, part) {
  const [, { [part]: { heads } }] = shown[0];
  const names = [...new Set(shown.flatMap(([, run]) => run[part].rows.map(([name]) => name)))];
  const longest = Object.fromEntries(Object.keys(shown[0][1][part].bars).map((head) =>
    [head, Math.max(...shown.flatMap(([, run]) => run[part].bars[head]))]));
  const many = shown.length > 1;
  const lines = names.flatMap((name) => shown.flatMap(([, run]) => {
    const at = run[part].rows.findIndex(([other]) => other === name);
    if (at < 0) return [];
    const look = content.ofMethod[run.family];
    const cells = run[part].rows[at].map((text, i) => barred(text, heads[i], run[part].bars, at, longest, look));
    return [many ? [cells[0], whose(run, look), ...cells.slice(1)] : cells];
  }));
  return simpleTable(many ? [heads[0], "run", ...heads.slice(1)] : heads, lines, many ? 2 : 1);
}

function whose(run, look) {
  return element("td", { className: "text whose" }, ...(look ? [swatch(look)] : []), run.name);
}

function barred(text, head, bars, at, longest, look) {
  if (!Object.hasOwn(bars, head)) return text;
  const cell = element("td", { className: "bar", textContent: text });
  if (look) cell.style.setProperty("--of", look.colour);
  cell.style.setProperty("--share", `${longest[head] ? Math.round(100 * bars[head][at] / longest[head]) : 0}%`);
  return cell;
}

function provenance(run, environments) {
  return [
    element("h2", { textContent: "Made with" }), definitions(flat(environments[run.environment])),
    element("h2", { textContent: "To run it again" }), copyable(run.command),
  ];
}

function definitions(values) {
  return element("dl", {}, ...Object.entries(values).flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: String(value) })]));
}

function flat(values, prefix = "") {
  return Object.fromEntries(Object.entries(values).flatMap(([name, value]) =>
    (value && typeof value === "object" ? Object.entries(flat(value, `${name} `)) : [[prefix + name, value]])));
}

function copyable(text) {
  const button = element("button", { type: "button", textContent: "Copy" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return element("div", {}, element("pre", { textContent: text, tabIndex: 0 }), button);
}

begin();
