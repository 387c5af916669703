"use strict";
// The page of reports: asks /v1/reports, draws a chart by uPlot and a table under it. The address names what is shown.
const by = (id) => document.getElementById(id);
const form = by("filters");
let catalogue, shown, plot, printing = false;

const ROUND = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 1 });

function span(seconds) {
  const said = (unit, english) => inWords(english, { n: ROUND.format(seconds / unit) });
  if (seconds < 60) return said(1, "{n} s");
  if (seconds < 3600) return said(60, "{n} min");
  if (seconds < 172800) return said(3600, "{n} h");
  return said(86400, "{n} d");
}

// Minor units are moved by text, never by division: no float ever holds money.
function money(minor) {
  const digits = String(Math.abs(minor)).padStart(3, "0");
  const whole = digits.slice(0, -2).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return `${minor < 0 ? "-" : ""}${whole}.${digits.slice(-2)}`;
}

function text(value, column) {
  if (value === null || value === undefined || value === "") return "–";
  if (column.unit === "seconds") return span(value);
  if (column.unit === "minor") return money(value);
  if (column.kind === "text") return value;
  return ROUND.format(value) + (column.unit === "percent" ? " %" : "");
}

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  if (content !== undefined) made.textContent = content;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function ask(address) {
  const response = await waiting(fetch(address, { headers: { Accept: "application/json" } }));
  if (response.status === 401) { location.reload(); throw new Error(inWords("Sign in again.")); }
  const body = await response.json();
  if (!response.ok) throw new Error([body.title, body.detail].filter(Boolean).join(": "));
  return body;
}

function wanted() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const report = catalogue.reports.find((one) => one.name === asked.get("report")) || catalogue.reports[0];
  return { report, asked };
}

function parameters(report, asked) {
  const sent = new URLSearchParams();
  for (const name of ["from", "to", "group", "compare", ...report.filters]) {
    const value = asked.get(name);
    if (!value) continue;
    if (["from", "to"].includes(name) && !report.period) continue;
    if (name === "compare" && !report.groups.length) continue;
    if (name === "group" && !report.groups.includes(value)) continue;
    sent.set(name, value);
  }
  return sent;
}

async function show() {
  const { report, asked } = wanted();
  const sent = parameters(report, asked);
  by("title").textContent = inWords(report.title);
  by("meaning").textContent = inWords(report.meaning);
  document.title = `${inWords(report.title)} - ${inWords("Reports")}`;
  for (const link of by("reports").children) {
    if (link.dataset.name === report.name) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  form.group.replaceChildren(...report.groups.map((name) => element("option", inWords(name), { value: name })));
  for (const label of form.querySelectorAll("[data-of]")) {
    const of = label.dataset.of;
    label.hidden = of === "period" ? !report.period : of === "group" || of === "compare" ? !report.groups.length : !report.filters.includes(of);
  }
  for (const name of ["from", "to", "channel", "alloy", "partner"]) form[name].value = asked.get(name) || "";
  form.compare.checked = asked.get("compare") === "previous";
  if (report.groups.length) form.group.value = sent.get("group") || report.groups[0];
  for (const format of ["csv", "parquet"]) {
    const all = new URLSearchParams(sent);
    all.set("limit", "10000");
    all.set("format", format);
    by(format).href = `/v1/reports/${report.name}?${all}`;
  }
  by("trouble").hidden = true;
  const asking = (shown = {});
  try {
    const found = await ask(`/v1/reports/${report.name}?${sent}`);
    if (shown !== asking) return;
    shown = { report, found, sent };
    form.from.value ||= found.from || ""; // not what somebody has typed meanwhile
    form.to.value ||= found.to || "";
    render();
  } catch (error) {
    if (shown !== asking) return;
    by("trouble").textContent = error.message;
    by("trouble").hidden = false;
    for (const id of ["figure", "empty", "more"]) by(id).hidden = true;
    by("table").replaceChildren();
    by("stamp").textContent = "";
  }
}

function stamp({ found }) {
  const lag = found.lag_s;
  const when = found.as_of
    ? inWords("As of {at} ({age} ago).", { at: new Date(found.as_of).toLocaleString(LOCALE), age: span(lag) })
    : inWords("The warehouse has no data yet.");
  const period = found.from ? inWords("{from} to {to}, days of {zone}.", { from: found.from, to: found.to, zone: found.time_zone }) : "";
  const rows = found.next ? inWords("Rows: {n}, more follow.", { n: found.row_count }) : inWords("Rows: {n}.", { n: found.row_count });
  by("stamp").textContent = [period, when, rows].filter(Boolean).join(" ");
  by("stamp").classList.toggle("old", lag !== null && lag > 3600);
}

function render() {
  const { found } = shown;
  stamp(shown);
  by("empty").hidden = found.rows.length > 0;
  by("more").hidden = !found.next;
  const past = earlier(found);
  const head = element("tr");
  for (const column of found.columns) head.append(element("th", inWords(column.title), { scope: "col", class: column.kind === "text" ? "" : "number" }));
  const body = element("tbody");
  found.rows.forEach((row, number) => {
    const line = element("tr");
    found.columns.forEach((column, i) => {
      const cell = element("td", text(row[i], column), { class: column.kind === "text" ? "" : "number" });
      if (past && column.kind !== "text") cell.append(element("span", inWords("before: {value}", { value: past[number] ? text(past[number][i], column) : "–" }), { class: "past" }));
      line.append(cell);
    });
    body.append(line);
  });
  const top = element("thead");
  top.append(head);
  by("table").replaceChildren(...(found.rows.length ? [top, body] : []));
  chart(past);
}

const TIMES = ["day", "week", "month"];

// Rows of the period before beside ours: by place where rows are days, else by the texts of the row.
function earlier(found) {
  if (!found.previous) return null;
  const texts = found.columns.map((column, i) => (column.kind === "text" ? i : -1)).filter((i) => i >= 0);
  const inTime = TIMES.includes(found.group);
  const key = (row) => texts.filter((i) => !inTime || i).map((i) => row[i]).join("\n");
  const steps = (rows) => {
    const places = new Map();
    return rows.map((row) => {
      const own = key(row);
      const place = found.group === "day" ? null : places.get(own) || 0;
      places.set(own, (place || 0) + 1);
      return [row, own, place];
    });
  };
  const day = (text, first) => Math.round((Date.parse(text) - Date.parse(first)) / 86400000);
  const known = new Map(steps(found.previous.rows).map(([row, own, place]) => [`${own}|${inTime ? place ?? day(row[0], found.previous.from) : ""}`, row]));
  return steps(found.rows).map(([row, own, place]) => known.get(`${own}|${inTime ? place ?? day(row[0], found.from) : ""}`));
}

function chart(past) {
  if (plot) plot.destroy();
  plot = null;
  const { report, found } = shown;
  const at = (name) => found.columns.findIndex((column) => column.name === name);
  const several = found.columns.findIndex((column) => column.kind === "text" && column.name !== "group");
  by("figure").hidden = !report.bars.length || !found.rows.length;
  if (by("figure").hidden) return;
  // A row for each currency or outcome: one series for each, of the first column of the chart.
  const keys = [...new Set(found.rows.map((row) => row[0]))];
  const kinds = several > 0 ? [...new Set(found.rows.map((row) => row[several]))].slice(0, 6) : [null];
  const unit = found.columns[at(report.bars[0])].unit;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const ink = colour("--soft"), line = colour("--line");
  const shownAs = (value, i) => (value === null || value === undefined ? "–" : text(value, found.columns[i]));
  const bars = several > 0 ? report.bars.slice(0, 1) : report.bars;
  const data = [keys.map((_, i) => i)];
  const series = [{ label: inWords(found.group), value: (_, i) => (i === null ? "–" : String(keys[i] ?? "–")) }];
  const inTime = TIMES.includes(found.group);
  let number = 0;
  const count = kinds.length * bars.length;
  for (const kind of kinds) for (const name of bars) {
    const i = at(name);
    const rows = found.rows.map((row, place) => [row, past && past[place]]).filter(([row]) => kind === null || row[several] === kind);
    const values = new Map(rows.map(([row]) => [row[0], row[i]]));
    const before = new Map(rows.map(([row, old]) => [row[0], old ? old[i] : null]));
    const stroke = colour(`--s${number % 3}`);
    const label = kind ?? inWords(found.columns[i].title);
    const paths = inTime && keys.length > 1 ? undefined : uPlot.paths.bars({ size: [0.7 / count, 60], align: number * 2 < count - 1 ? -1 : number * 2 > count - 1 ? 1 : 0 });
    data.push(keys.map((key) => values.get(key) ?? null));
    series.push({ label, stroke, width: 2, fill: paths ? stroke : undefined, paths, points: { show: !paths && keys.length < 40 }, value: (_, v) => shownAs(v, i) });
    if (past && number === 0) {
      data.push(keys.map((key) => before.get(key) ?? null));
      series.push({ label: inWords("{what}, before", { what: label }), stroke: colour("--past"), width: 2, dash: [6, 4], points: { show: !inTime }, value: (_, v) => shownAs(v, i) });
    }
    number += 1;
  }
  const width = printing ? 680 : by("chart").clientWidth || 600;
  const tick = (value) => (unit === "minor" ? ROUND.format(value / 100) : unit === "seconds" ? span(value) : ROUND.format(value));
  const axis = { stroke: ink, grid: { stroke: line, width: 0.5 }, ticks: { stroke: line } };
  const longest = Math.max(...keys.map((key) => String(key ?? "–").length));
  plot = new uPlot({
    width, height: width < 500 ? 220 : 300, series,
    scales: { x: { time: false, range: [-0.6, keys.length - 0.4] }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high || 1) * 1.08] } },
    axes: [
      { ...axis, grid: { show: false }, space: longest * 8 + 12, incrs: [1, 2, 5, 7, 10, 14, 20, 30, 50, 100, 200, 500, 1000],
        values: (_, places) => places.map((i) => (Number.isInteger(i) && keys[i] !== undefined ? String(keys[i] ?? "–") : "")) },
      { ...axis, size: 72, values: (_, values) => values.map(tick) },
    ],
  }, data, by("chart"));
  const drawn = bars.map((name) => inWords(found.columns[at(name)].title)).join(", ");
  by("caption").textContent = inWords("{report} by {group}: {columns}", { report: inWords(report.title), group: inWords(found.group), columns: drawn });
}

function go(changes) {
  if (!catalogue) return;
  const { report } = wanted();
  const next = new URLSearchParams({ report: report.name });
  for (const [name, value] of new FormData(form)) if (value && !form[name].closest("label").hidden) next.set(name, value);
  for (const [name, value] of Object.entries(changes)) next.set(name, value);
  if (`#${next}` === location.hash) show();
  else location.hash = String(next);
}

form.addEventListener("submit", (event) => { event.preventDefault(); go({}); });
form.group.addEventListener("change", () => go({}));
form.compare.addEventListener("change", () => go({}));
by("print").addEventListener("click", () => print());
by("more").addEventListener("click", async () => {
  const asking = shown;
  const sent = new URLSearchParams(asking.sent);
  sent.set("after", asking.found.next);
  try {
    const next = await ask(`/v1/reports/${asking.report.name}?${sent}`);
    if (shown !== asking) return;
    asking.found.rows.push(...next.rows);
    asking.found.row_count = asking.found.rows.length;
    asking.found.next = next.next;
    render();
  } catch (error) {
    by("trouble").textContent = error.message;
    by("trouble").hidden = false;
  }
});
let resized;
const redraw = () => shown && shown.found && chart(earlier(shown.found));
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(redraw, 150); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => { printing = true; redraw(); });
addEventListener("afterprint", () => { printing = false; redraw(); });

ask("/v1/reports").then((found) => {
  catalogue = found;
  by("reports").replaceChildren(...found.reports.map((report) => {
    const link = element("a", inWords(report.title), { href: `#report=${report.name}` });
    link.dataset.name = report.name;
    return link;
  }));
  addEventListener("hashchange", show); // before, nobody knows what could be shown
  return show();
}).catch((error) => { by("trouble").textContent = error.message; by("trouble").hidden = false; });
