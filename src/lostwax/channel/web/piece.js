// A model and what it costs, wherever pieces are ordered: the file goes straight to the storage, is shown in 3D, and every
// alloy and finish is priced. Data reaches the document by textContent only.
export const $ = (selector, root = document) => root.querySelector(selector);
export const words = JSON.parse($("#words").textContent), language = document.documentElement.lang;
export const say = (key, values = {}) => Object.entries(values).reduce((text, [name, value]) => text.replace(`{${name}}`, value), words[key]);
const { upload: UPLOAD, viewer: VIEWER, three: THREE, sha256: SHA256, largestMb } = document.body.dataset;
const TIMEOUT_MS = 15_000, LOOK_MS = 700, SLOW_MS = 20_000, ALLOYS_AT_ONCE = 4;
export const state = { model: null, option: null, shown: null, looking: 0, stop: null };
// What a page does besides: before anything is sent, when a model is there or is none any more, when a price is chosen or
// is none any more.
export const hooks = { enter: async () => {}, ready: () => {}, sent: () => {}, forgotten: () => {}, chosen: () => {}, unchosen: () => {} };

export const element = (tag, text = "", attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
export const tell = (text) => { $("#said").textContent = text; $("#said").hidden = !text; };
export const trouble = (text) => { $("#trouble").textContent = text; $("#trouble").hidden = !text; };
export const money = (amount, currency) => new Intl.NumberFormat(language, { style: "currency", currency }).format(amount);
export const whyNot = ({ code, detail }) => words.failure[code] || detail;
export const day = (at) => new Date(at).toLocaleDateString(language, { dateStyle: "long" });
export const pause = (ms) => new Promise((go) => setTimeout(go, ms));

export async function api(method, path, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS), body: body === undefined ? undefined : JSON.stringify(body),
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
    });
  } catch {
    throw Object.assign(new Error(words.away), { status: 503 });
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(told.detail || told.title || `${answer.status}`), { status: answer.status, problem: told });
  return told;
}

// A request that is safe to repeat, because it carries its key, is repeated until there is an answer.
export async function surely(method, path, body) {
  const key = crypto.randomUUID();
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      return await api(method, path, body, { "Idempotency-Key": key });
    } catch (error) {
      if (error.status < 500 && error.status !== 429) throw error;
      trouble(words.away);
      await pause(wait);
    } finally {
      if (wait > 500) trouble("");
    }
  }
}

export const attempt = (work) => async (event) => {
  event?.preventDefault?.();
  const button = event?.submitter || (event?.target?.matches?.("button") ? event.target : null);
  if (button) button.disabled = true;
  trouble("");
  try {
    await work(event);
  } catch (error) {
    trouble(error.message);
  } finally {
    if (button) button.disabled = false;
  }
};

// -- the model ------------------------------------------------------------------------------------------------------

export async function show(buffer, name, colour = "#e0b455") {
  $("#viewer").hidden = false;
  state.shown?.end();
  state.shown = null;
  try {
    const [viewer, three] = await Promise.all([import(VIEWER), import(THREE)]);
    state.shown = await viewer.show($("#canvas"), three, buffer, name, colour);
    const count = state.shown.open;
    $("#viewer-words").textContent = count ? say("open", { count }) : say("closed", { size: state.shown.size });
    $("#viewer-words").className = count ? "message" : "soft";
  } catch {
    $("#viewer-words").textContent = words.noView;
  }
}

export async function take(file) {
  if (!/\.(stl|obj|3mf)$/i.test(file.name)) throw new Error(words.wrongKind);
  if (!file.size || file.size > largestMb * 1e6) throw new Error(words.tooLarge);
  forget();
  if (file.size < 150e6) show(await file.arrayBuffer(), file.name);
  const { digestOf, upload } = await import(UPLOAD), { sha256 } = await import(SHA256);
  $("#progress").hidden = false;
  const bar = $("#bar"), told = $("#progress-words"), button = $("#pause");
  const run = async () => {
    state.stop = new AbortController();
    const { signal } = state.stop;
    button.textContent = words.pause;
    button.onclick = () => state.stop.abort();
    try {
      told.textContent = words.hashing;
      await hooks.enter();
      const digest = await digestOf(file, sha256, (share) => { bar.value = share * 20; }, signal);
      const step = ({ sent = 0, poor }) => {
        if (poor) { told.textContent = words.line; return; }
        const percent = Math.floor((100 * sent) / file.size);
        bar.value = 20 + percent * 0.8;
        told.textContent = say("sending", { percent });
      };
      await upload(file, digest, api, step, signal);
      bar.value = 100;
      told.textContent = words.sent;
      button.hidden = true;
      await ready(digest, null);
      hooks.sent();
    } catch (error) {
      if (error.constructor.name !== "Stopped") throw error;
      told.textContent = words.paused;
      button.textContent = words.goOn;
      button.onclick = attempt(run);
    }
  };
  button.hidden = false;
  await run();
}

export function forget() {
  state.stop?.abort();
  state.model = state.option = null;
  state.looking++;
  for (const id of ["details", "prices"]) $(`#${id}`).hidden = true;
  hooks.forgotten();
}

export async function ready(sha256, ringSize) {
  state.model = sha256;
  $("#details").hidden = false;
  hooks.ready();
  $("#wish").ring_size.value = ringSize ?? "";
  await prices();
}

const drop = $("#drop");
$("#file").onchange = attempt(async ({ target }) => { const [file] = target.files; target.value = ""; if (file) await take(file); });
for (const kind of ["dragover", "dragenter"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", attempt(async (event) => { const [file] = event.dataTransfer.files; if (file) await take(file); }));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => event.preventDefault());

for (const button of document.querySelectorAll("[data-piece]")) {
  button.onclick = attempt(async () => {
    forget();
    $("#progress").hidden = true;
    const code = button.dataset.piece, offer = await api("GET", "/v1/offer");
    await hooks.enter();
    const [file, taken] = await Promise.all([fetch(`/v1/catalogue/${code}`).then((answer) => answer.arrayBuffer()), api("POST", `/v1/catalogue/${code}/take`)]);
    show(file, `${code}.stl`);
    tell(button.textContent);
    await ready(taken.sha256, offer.pieces.find((piece) => piece.code === code)?.ring_size);
  });
}

// -- prices ---------------------------------------------------------------------------------------------------------

export function options() {
  const form = new FormData($("#wish")), ring = form.get("ring_size"), engraving = form.get("engraving").trim();
  return { quantity: Number(form.get("quantity")), ring_size: ring ? Number(ring) : null, engraving: engraving || null };
}

export async function prices() {
  const turn = ++state.looking, details = options(), began = Date.now();
  state.option = null;
  hooks.unchosen();
  $("#prices").hidden = false;
  $("#prices-words").textContent = words.pricing;
  const rows = [...document.querySelectorAll("[data-alloy]")], finishes = [...rows[0].querySelectorAll("[data-finish]")].map((cell) => cell.dataset.finish);
  for (const cell of document.querySelectorAll("[data-finish]")) cell.replaceChildren(element("span", "…", { class: "soft" }));
  const quotes = [];
  for (let n = 0; n < rows.length; n += ALLOYS_AT_ONCE) {
    const wanted = rows.slice(n, n + ALLOYS_AT_ONCE).flatMap((row) => finishes.map((finish) => ({ alloy: row.dataset.alloy, finish, ...details })));
    quotes.push(surely("POST", "/v1/quotes", { model: state.model, options: wanted }).then((asked) => asked.quote_id));
  }
  const open = new Set(await Promise.all(quotes)), failures = new Set();
  while (open.size && turn === state.looking) {
    for (const id of open) {
      let quote;
      try {
        quote = await api("GET", `/v1/quotes/${id}`);
        trouble("");
      } catch (error) {
        if (error.status < 500) throw error;
        trouble(words.away);
        continue;
      }
      if (turn !== state.looking) return;
      for (const option of quote.options) fill(quote.quote_id, option, failures);
      if (quote.options.every((option) => option.amount || option.failure)) open.delete(id);
    }
    $("#prices-words").textContent = open.size ? (Date.now() - began > SLOW_MS ? words.slow : words.pricing) : [...failures].join(" ") || words.priced;
    if (open.size) await pause(LOOK_MS);
  }
}

function fill(quoteId, option, failures) {
  const row = $(`[data-alloy="${option.alloy}"]`), cell = $(`[data-finish="${option.finish}"]`, row);
  if (option.amount) {
    if (cell.querySelector("button")) return;
    const button = element("button", money(option.amount, option.currency), { type: "button", "aria-pressed": "false" });
    const finish = $(`thead th:nth-child(${cell.cellIndex + 1})`, row.closest("table")).textContent;
    button.setAttribute("aria-label", `${row.cells[0].textContent}, ${finish}: ${button.textContent}`);
    button.onclick = () => {
      for (const other of document.querySelectorAll("td button")) other.setAttribute("aria-pressed", String(other === button));
      state.option = { ...option, quoteId };
      state.shown?.paint(row.dataset.colour);
      hooks.chosen(say("chosen", { alloy: row.cells[0].textContent, finish, amount: button.textContent }));
    };
    cell.replaceChildren(button);
  } else if (option.failure) {
    failures.add(whyNot(option.failure));
    cell.replaceChildren(element("span", words.noPrice, { class: "soft", title: whyNot(option.failure) }));
  }
}

$("#wish").onsubmit = attempt(prices);
