// The page of whoever is on call. Data reaches the document by textContent and attributes only.
const $ = (selector, root = document) => root.querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";

function el(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  if (className) made.className = className;
  return made;
}
function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const num = (value, digits = 1) => value.toLocaleString(LOCALE, { maximumFractionDigits: digits });
const wait = (s) => (s == null ? "-" : s < 1 ? inWords("{n} ms", { n: num(s * 1000) }) : inWords("{n} s", { n: num(s) }));
const AGES = [[120, 1, "{n} s"], [7200, 60, "{n} min"], [172800, 3600, "{n} h"], [Infinity, 86400, "{n} d"]];
function age(s) {
  const [, unit, said] = AGES.find(([most]) => s < most);
  return inWords(said, { n: num(s / unit, 0) });
}
const word = (status) => inWords(status.toLowerCase().replaceAll("_", " "));
const micro = (us) => wait(us / 1e6);
const clock = (at) => new Date(at).toLocaleTimeString(LOCALE) + "." + at.slice(20, 23);

function says(text) {
  const trouble = $("#trouble");
  trouble.textContent = text;
  trouble.hidden = !text;
}
async function ask(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  let response;
  try {
    response = await waiting(fetch(`${path}?${new URLSearchParams(given)}`, { headers: { Accept: "application/json" } }));
  } catch {
    says(inWords("Telemetry does not answer."));
    return null;
  }
  if (response.status === 401) return location.reload();
  const body = await response.json().catch(() => ({}));
  says(response.ok ? "" : [body.title, body.detail].filter(Boolean).join(": ") || inWords("Answered {status}.", { status: response.status }));
  return response.ok ? body : null;
}

/* ---- Services ---- */
function card(service) {
  const lag = Object.values(service.lag).reduce((a, b) => a + b, 0);
  const facts = [
    [inWords("Requests"), inWords("{n} /s", { n: num(service.rate) }), ""],
    [inWords("Errors"), `${num(service.error_share * 100, 2)} %`, service.error_share > 0.01 ? "bad" : ""],
    ["p50, p99", `${wait(service.p50)}, ${wait(service.p99)}`, ""],
    [inWords("Messages"), inWords("{n} /s", { n: num(service.messages_rate) }), ""],
    [inWords("Kafka lag"), num(lag, 0), lag > 1000 ? "warn" : ""],
    [inWords("Outbox"), `${num(service.outbox_depth, 0)}, ${wait(service.outbox_age)}`, service.outbox_age > 60 ? "warn" : ""],
    [inWords("Dead letters"), num(service.dead, 0), service.dead ? "bad" : ""],
    [inWords("Memory"), `${num(service.memory_bytes / 1048576, 0)} MiB`, ""],
  ];
  const worst = !service.seen || facts.some((f) => f[2] === "bad") ? "bad" : facts.some((f) => f[2]) ? "warn" : "";
  const item = el("li", "", worst), head = el("h2", service.name), list = el("dl");
  head.append(el("span", service.seen ? inWords("seen") : inWords("unseen since {at}", { at: new Date(service.last_seen).toLocaleTimeString(LOCALE) })));
  for (const [name, value, kind] of facts) list.append(el("dt", name), el("dd", value, kind));
  item.append(head, list);
  return item;
}
function list(title, rows, kind, says) {
  const item = el("li", "", kind), head = el("h2", title), facts = el("dl");
  head.append(el("span", says));
  for (const [name, value, how] of rows) facts.append(el("dt", name), el("dd", value, how));
  item.append(head, facts);
  return item;
}
function around(answer) {
  const ages = Object.entries(answer.oldest).map(([status, s]) => [word(status), age(s), ""]);
  const dead = Object.entries(answer.dead_letters).map(([topic, n]) => [topic, num(n, 0), "bad"]);
  const cards = [list(inWords("Longest in a status"), ages.length ? ages : [[inWords("no order waits"), "", ""]], "", "")];
  if (dead.length) cards.push(list(inWords("Dead letters"), dead, "bad", inWords("wait for a decision")));
  const found = answer.audit && Object.entries(answer.audit.findings).map(([kind, n]) => [kind, num(n, 0), "bad"]);
  const when = answer.audit ? inWords("{age} ago", { age: age((Date.parse(answer.at) - Date.parse(answer.audit.at)) / 1000) }) : "";
  if (!answer.audit) cards.push(list(inWords("Last audit"), [[inWords("none in eight days: run lostwax audit"), "", ""]], "warn", ""));
  else cards.push(list(inWords("Last audit"), found.length ? found : [[inWords("every order once, alike everywhere"), "", ""]], found.length ? "bad" : "", when));
  return cards;
}
function amount(value, unit) {
  if (unit === "s") return age(value);
  if (unit === "By") return `${num(value / 1048576, 0)} MiB`;
  return unit === "share" ? `${num(value * 100)} %` : num(value);
}
// What a rule of the house says, in the page's language; what another file of rules says, as it stands there.
function summary(alert, rules) {
  const said = rules.find((rule) => rule.name === alert.rule)?.summary;
  if (!(said in TOLD)) return alert.summary;
  const labels = Object.fromEntries(Object.entries(alert.labels).map(([name, value]) => [name, name === "status" ? word(value) : value]));
  return inWords(said, { ...labels, value: amount(alert.value, alert.unit), limit: amount(alert.limit, alert.unit) });
}
function ring(alert, rules) {
  const item = el("li", "", `${alert.state} ${alert.severity}`);
  item.append(el("b", alert.state === "firing" ? inWords(alert.severity) : inWords("pending")), summary(alert, rules) + " ");
  item.append(el("small", inWords("{rule}, since {at}", { rule: alert.rule, at: new Date(alert.since).toLocaleString(LOCALE) })));
  return item;
}
async function alerts() {
  const answer = await ask("/v1/alerts");
  if (!answer) return false;
  const rows = answer.alerts.map((alert) => ring(alert, answer.rules)), firing = answer.alerts.filter((a) => a.state === "firing").length;
  if (!answer.seeing) rows.unshift(el("li", inWords("Alerts cannot see: {trouble}. What rang before stands below.", { trouble: answer.trouble }), "blind"));
  else if (!rows.length) rows.push(el("li", inWords("No alert rings."), "none"));
  $("#alerts").replaceChildren(...rows);
  $("#rings").textContent = firing;
  $("#rings").hidden = !firing;
  return true;
}
async function board() {
  if (!(await alerts())) return;
  const answer = await ask("/v1/services");
  if (!answer) return;
  $("#board").replaceChildren(...around(answer), ...answer.services.map(card));
  $("#board-at").textContent = inWords("over five minutes, at {at}", { at: new Date(answer.at).toLocaleTimeString(LOCALE) });
}
// Never a second look while the first is waited for: when answers take long, that would make them take longer.
let looking = false;
async function look() {
  if (looking) return;
  looking = true;
  await board().finally(() => { looking = false; });
}

/* ---- One order ---- */
async function story(order) {
  const answer = await ask(`/v1/orders/${encodeURIComponent(order)}/story`);
  $("#fall").replaceChildren();
  $("#story-lines").replaceChildren();
  $("#story-says").textContent = "";
  if (!answer) return;
  const span = Math.max(1, ...answer.hops.map((hop) => hop.after_us + hop.duration_us));
  // Statements and calls of the store are many and seldom of interest: folded away, unless they failed.
  const minor = answer.hops.filter((hop) => hop.kind === "client" && hop.status !== "error").length;
  $("#story-says").textContent = inWords("{order}: {n} hops over {span}", { order: [answer.code, ...answer.orders].filter(Boolean).join(" "), n: answer.hops.length - minor, span: micro(span) })
    + (answer.cut ? inWords(", and more that are not shown") : "");
  $("#story-all").hidden = !minor;
  $("#story-all span").textContent = inWords("also {n} statements and calls that these hops made", { n: minor });
  for (const hop of answer.hops) {
    const item = el("li", "", hop.kind === "client" && hop.status !== "error" ? "minor" : hop.status), name = el("b", hop.name), picture = svg("svg", { viewBox: "0 0 1000 18", preserveAspectRatio: "none" });
    name.append(el("small", `${hop.service}, ${hop.kind}, ${clock(hop.at)}`));
    if (hop.attributes.error) name.append(el("small", hop.attributes.error));
    picture.append(svg("rect", { x: (hop.after_us / span) * 1000, y: 3, height: 12, width: Math.max(3, (hop.duration_us / span) * 1000) }));
    item.append(name, picture, el("span", micro(hop.duration_us)));
    $("#fall").append(item);
  }
  $("#story-lines").replaceChildren(...answer.logs.map(row));
}

/* ---- Logs ---- */
function row(line) {
  const item = el("li", "", line.level);
  item.append(el("small", `${clock(line.at)} ${line.service} ${line.level} `), line.message + " ");
  if (line.code) {
    const link = el("a", line.code);
    link.href = `#story=${line.order_id}`;
    item.append(link, " ");
  }
  const rest = Object.entries(line.attributes).filter(([name]) => !["logger", "exception"].includes(name));
  if (rest.length) item.append(el("small", rest.map(([name, value]) => `${name}=${value}`).join(" ")));
  if (line.attributes.exception) item.append(el("small", "\n" + line.attributes.exception));
  return item;
}
let next = null, listening = null;
const asked = () => Object.fromEntries(new FormData($("#logs-form")));
async function search(older) {
  const answer = await ask("/v1/logs", { ...asked(), after: older ? next : "" });
  if (!answer) return;
  if (!older) $("#lines").replaceChildren();
  $("#lines").append(...answer.lines.map(row));
  $("#logs-says").textContent = $("#lines").children.length ? "" : inWords("No line is like that.");
  next = answer.next;
  $("#more").hidden = !next;
}
function quiet() {
  listening?.close();
  listening = null;
  $("#tail").setAttribute("aria-pressed", "false");
}
function live() {
  if (listening) return quiet();
  const { from, ...which } = asked();
  listening = new EventSource(`/v1/logs/tail?${new URLSearchParams(Object.entries(which).filter(([, v]) => v))}`);
  $("#tail").setAttribute("aria-pressed", "true");
  $("#logs-says").textContent = inWords("Lines come as they are written.");
  listening.onmessage = (event) => {
    says("");
    $("#lines").prepend(row(JSON.parse(event.data)));
    while ($("#lines").children.length > 500) $("#lines").lastElementChild.remove();
  };
  listening.addEventListener("trouble", (event) => says(JSON.parse(event.data)));
}

/* ---- Metrics ---- */
let metrics = [];
async function names() {
  const answer = await ask("/v1/metrics");
  if (!answer) return;
  metrics = answer.metrics;
  const select = $("#metrics-form [name=name]");
  select.replaceChildren(...metrics.map((m) => el("option", m.name)));
  select.value = "http.server.request.duration";
  labels();
}
function labels() {
  const metric = metrics.find((m) => m.name === $("#metrics-form [name=name]").value);
  if (!metric) return;
  $("#metrics-form [name=by]").replaceChildren(...["service", "instance", ...metric.labels].map((name) => el("option", name)));
  $("#metrics-says").textContent = `${inWords(metric.description)} (${inWords(metric.kind)}, ${metric.unit})`;
}
function chart(title, lines, of) {
  const points = lines.flatMap((line) => line.points.filter((p) => of(p) != null).map((p) => [Date.parse(p.at), of(p)]));
  const box = el("div"), top = Math.max(...points.map((p) => p[1]), 1e-9);
  const from = Math.min(...points.map((p) => p[0])), to = Math.max(...points.map((p) => p[0]), from + 1);
  const picture = svg("svg", { viewBox: "0 0 900 220", role: "img", "aria-label": title });
  for (const share of [0, 0.5, 1]) {
    const y = 195 - 175 * share, text = svg("text", { x: 4, y: Math.max(24, y - 3) });
    text.textContent = (top * share).toPrecision(3);
    picture.append(svg("line", { x1: 0, x2: 900, y1: y, y2: y }), text);
  }
  lines.slice(0, 8).forEach((line, number) => {
    const places = line.points.filter((p) => of(p) != null)
      .map((p) => `${60 + (830 * (Date.parse(p.at) - from)) / (to - from)},${195 - (175 * of(p)) / top}`);
    picture.append(svg("polyline", { points: places.join(" "), class: `c${number}` }));
    if (places.length < 40) {
      picture.append(...places.map((place) => svg("circle", { cx: place.split(",")[0], cy: place.split(",")[1], r: 3, class: `c${number}` })));
    }
    box.append(el("span", `\u25cf ${Object.values(line.labels).join(" ") || inWords("all")}`, `k c${number}`));
  });
  [[60, from, "start"], [890, to, "end"]].forEach(([x, at, anchor]) => {
    const text = svg("text", { x, y: 216, "text-anchor": anchor });
    text.textContent = new Date(at).toLocaleTimeString(LOCALE);
    picture.append(text);
  });
  box.prepend(el("h2", title), picture);
  return box;
}
async function show() {
  const given = Object.fromEntries(new FormData($("#metrics-form")));
  const answer = await ask(`/v1/metrics/${encodeURIComponent(given.name)}`, { by: given.by, from: given.from });
  if (!answer) return;
  const lines = answer.lines.filter((line) => line.points.length);
  if (!lines.length) return $("#chart").replaceChildren(el("p", inWords("Nothing was measured then.")));
  const charts = [chart(answer.kind === "gauge" ? inWords("Reading ({unit})", { unit: answer.unit }) : inWords("Per second"), lines, (p) => p.value)];
  if (answer.kind === "histogram") {
    charts.push(chart(`p50 (${answer.unit})`, lines, (p) => p.p50), chart(`p99 (${answer.unit})`, lines, (p) => p.p99));
  }
  $("#chart").replaceChildren(...charts);
}

/* ---- Views ---- */
function view() {
  const [name, order] = location.hash.slice(1).split("=");
  const present = ["services", "story", "logs", "metrics"].includes(name) ? name : "services";
  for (const section of document.querySelectorAll("section")) section.hidden = section.id !== present;
  for (const link of document.querySelectorAll("nav a")) {
    link.hash === `#${present}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  if (present !== "logs") quiet();
  if (present === "services") look();
  if (present === "metrics" && !metrics.length) names();
  if (present === "story" && order) {
    $("#story-form [name=order]").value = decodeURIComponent(order);
    story(decodeURIComponent(order));
  }
}
$("#story-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const hash = `#story=${encodeURIComponent($("#story-form [name=order]").value.trim())}`;
  location.hash === hash ? view() : (location.hash = hash);
});
$("#logs-form").addEventListener("submit", (event) => { event.preventDefault(); quiet(); search(false); });
$("#metrics-form").addEventListener("submit", (event) => { event.preventDefault(); show(); });
$("#metrics-form [name=name]").addEventListener("change", labels);
$("#more").addEventListener("click", () => search(true));
$("#tail").addEventListener("click", live);
$("#story-all input").addEventListener("change", (event) => $("#fall").classList.toggle("whole", event.target.checked));
window.addEventListener("hashchange", view);
setInterval(() => { if (!document.hidden && !$("#services").hidden) look(); }, 5000);
view();
