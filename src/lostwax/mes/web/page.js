// The operators' page. Data reaches the document by textContent only. What is known lives in `lists`, `work`, `busy`
// and `notes`; `render` brings the document up to it and keeps elements, and with them focus, scroll and typed text.

const EVERY_MS = 2000, OTHERS_EVERY_MS = 10_000, TIMEOUT_MS = 15_000, PATIENCE_MS = 45_000, SLOW_MS = 7000;
const PAGE = 50, MOST = 200; // orders that "more" adds; the most that the service gives at once
const DONE_STATUS = {
  complete: "MANUFACTURING_COMPLETED", pack: "PACKAGING", ship: "SHIPPED", release: "MANUFACTURING_APPROVED",
  rework: "REWORK",
};
const LOST = ["voided", "cancelled", "released", "reworked"]; // claims that were taken from their operator
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));

/* ---- Words, in the language of the page ---- */
const LANGUAGE = document.documentElement.lang, WORDS = JSON.parse(document.body.dataset.words);
const plural = new Intl.PluralRules(LANGUAGE);
const say = (key, values = {}) => Object.entries(values)
  .reduce((text, [name, value]) => text.replace(`{${name}}`, () => value), WORDS[key] ?? key);
const many = (key, n) => say(`${key} ${plural.select(n)}`, { n });
const statusWords = (status) => WORDS[`status ${status}`] ?? status;
const because = (reason) => (reason ? ` (${reason})` : "");
const lostWhy = (claim) => claim.state === "cancelled" ? say("lost cancelled") + because(claim.reason)
  : claim.ended_by ? say("lost put back", { who: claim.ended_by }) + because(claim.reason)
  : claim.reason ?? say("lost refused");

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/* ---- Asking the service ---- */

class Trouble extends Error {
  constructor(status, problem = {}) {
    super(problem.status_now ? say("is now", { status: statusWords(problem.status_now) })
      : status === 0 ? say("away")
      : [problem.title, problem.detail].filter(Boolean).join(": ") || say("answered", { status }));
    this.status = status;
    this.problem = problem;
    this.code = (problem.type ?? "").replace("/problems/", "");
    this.mayPass = status === 0 || status >= 500; // asking again may help
  }
}

/** The JSON of an answer; null for a redirect. `body` is an object to be sent as JSON, or a form. */
async function ask(method, path, body) {
  const form = body instanceof URLSearchParams;
  const abort = new AbortController();
  const clock = setTimeout(() => abort.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(path, {
      method, signal: abort.signal, cache: "no-store", redirect: "manual",
      headers: { Accept: "application/json", ...(body && !form && { "Content-Type": "application/json" }) },
      body: body && !form ? JSON.stringify(body) : body,
    });
    if (response.type === "opaqueredirect") return null;
    const answer = await response.json().catch((error) => {
      if (response.ok || error.name === "AbortError") throw error;
      return {};
    });
    if (!response.ok) throw new Trouble(response.status, answer);
    return answer;
  } catch (error) {
    throw error instanceof Trouble ? error : new Trouble(0);
  } finally {
    clearTimeout(clock);
  }
}

/** Ask until there is an answer. Every step may be asked for twice: the service knows it again. */
async function insist(method, path, body, onWaiting) {
  const until = performance.now() + PATIENCE_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask(method, path, body);
    } catch (trouble) {
      trouble.again = attempt > 1;
      if (!trouble.mayPass || performance.now() > until) throw trouble;
      onWaiting(trouble);
      await pause(Math.min(300 * 2 ** attempt, 4000));
    }
  }
}

/* ---- Working ---- */

function workPage() {
  const role = document.body.dataset.role; // supervisors see what anybody has in hand
  const skew = Date.parse(document.body.dataset.now) - Date.now(); // a tablet's clock may be wrong
  const list = () => (
    { cards: [], wanted: PAGE, more: false, askedAt: -Infinity, known: false, source: "", gone: new Map() }
  );
  const lists = { queue: list(), packing: list(), shipping: list() };
  const mine = { work: [], askedAt: -Infinity, known: false, gone: new Map(), fresh: new Map() };
  const busy = new Map(); // order -> what is being asked for it, in words
  const notes = new Map(); // order -> why its last step was refused
  const views = { queue: ["queue"], work: [], packing: ["packing", "shipping"] };
  const panes = Object.fromEntries($$("[data-pane]").map((pane) => [pane.dataset.pane, pane]));
  const find = $("#find"), findClear = $("#find-clear");
  const connection = { okAt: null, trouble: null };
  let view = "queue";

  /* -- What is remembered on this tablet -- */

  function remembered(name) {
    try {
      const value = JSON.parse(localStorage.getItem(name));
      return Array.isArray(value) ? value : [];
    } catch {
      return [];
    }
  }

  function remember(name, value, most) {
    try {
      const others = remembered(name).filter((v) => v !== value);
      localStorage.setItem(name, JSON.stringify([value, ...others].slice(0, most)));
    } catch {
      // No storage, no memory: the page works without.
    }
  }

  /* -- Words -- */

  function toast(text, kind = "") {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `toast ${kind}`;
    button.textContent = text;
    button.addEventListener("click", () => button.remove());
    $("#toasts").append(button);
    while ($("#toasts").children.length > 3) $("#toasts").firstElementChild.remove();
    setTimeout(() => button.remove(), kind === "bad" ? 12_000 : 5000);
  }

  /** A code of an alloy or a finish as words: gold-14k, gold-plated-2-5um. */
  const named = (kind, code) => {
    if (WORDS[`${kind} ${code}`]) return WORDS[`${kind} ${code}`];
    const text = code.replace(/(\d)-(\d+)um\b/, "$1.$2 µm").replaceAll("-", " ").replace(/(\d)k\b/, "$1K");
    return text[0].toUpperCase() + text.slice(1);
  };
  const size = (mm) => (mm === null ? null : mm < 10 ? mm.toFixed(1) : Math.round(mm).toLocaleString(LANGUAGE));
  const typed = (text) => text.toUpperCase().replace(/[^0-9A-Z]/g, "").replace(/O/g, "0").replace(/[IL]/g, "1");

  /** By whole days: of the promise's day and of this tablet's today. */
  function due(card) {
    if (card.status === "REWORK") return ["rework", say("rework"), say("first in line")];
    const at = new Date(card.due_at), today = new Date(Date.now() + skew);
    const days = Math.round((Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate())
      - Date.UTC(today.getFullYear(), today.getMonth(), today.getDate())) / 864e5);
    const on = at.toLocaleDateString(LANGUAGE === "en" ? "en-GB" : LANGUAGE, { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
    if (days < 0) return ["late", many("late", -days), on];
    if (days < 2) return ["today", say(days ? "due tomorrow" : "due today"), on];
    return [days < 6 ? "soon" : "", many("due", days), on];
  }

  /* -- Fetching -- */

  async function loadList(name) {
    const it = lists[name], cards = [], askedAt = performance.now(), wanted = it.wanted;
    let after = null, source = "";
    do {
      const page = await ask("GET", `/v1/lists/${name}?limit=${Math.min(MOST, wanted - cards.length)}`
        + (after === null ? "" : `&after=${encodeURIComponent(after)}`));
      cards.push(...page.cards);
      after = page.next ?? null;
      source = page.source;
    } while (after !== null && cards.length < wanted);
    if (askedAt < it.askedAt) return; // a newer answer overtook this one
    Object.assign(it, { askedAt, known: true, source, more: after !== null });
    it.cards = [...new Map(cards.map((c) => [c.order_id, c])).values()]
      .filter((c) => !isGone(it.gone, c.order_id, askedAt, c.version));
  }

  async function loadWork() {
    const askedAt = performance.now();
    if (role === "seller") return; // looks only
    const answer = await ask("GET", role === "operator" ? "/v1/work" : "/v1/in-hand?limit=200");
    if (askedAt < mine.askedAt) return;
    const work = answer.work.filter((w) => !isGone(mine.gone, w.claim.claim_id, askedAt));
    for (const [id, fresh] of mine.fresh) {
      if (askedAt > fresh.at) mine.fresh.delete(id);
      else if (!work.some((w) => w.claim.claim_id === id)) work.unshift(fresh.work);
    }
    for (const { claim, card } of work) {
      const before = mine.work.find((w) => w.claim.claim_id === claim.claim_id);
      if (before && !LOST.includes(before.claim.state) && LOST.includes(claim.state)) {
        toast(say("not yours any more", { code: card.code, why: lostWhy(claim) }), "bad");
      }
    }
    Object.assign(mine, { askedAt, work, known: true });
  }

  /** Whether an answer asked for at `askedAt` may not yet know that this left the list by our own doing. */
  function isGone(gone, id, askedAt, version) {
    const mark = gone.get(id);
    if (mark === undefined) return false;
    const still = mark.version === undefined ? askedAt <= mark.at
      : version <= mark.version && performance.now() < mark.at + 30_000;
    if (!still) gone.delete(id);
    return still;
  }

  /** Take a card off a list at once; with `version`, until the list has a newer one. */
  function leave(name, id, version) {
    lists[name].gone.set(id, { at: performance.now(), version });
    lists[name].cards = lists[name].cards.filter((c) => c.order_id !== id);
  }

  let timer = 0, running = false, again = false;

  async function refresh() {
    clearTimeout(timer);
    if (document.hidden) return; // nobody looks: asked for again when somebody does
    if (running) {
      again = true;
      return;
    }
    running = true;
    again = false;
    const old = performance.now() - OTHERS_EVERY_MS;
    const wanted = Object.keys(lists).filter((name) => views[view].includes(name) || lists[name].askedAt < old);
    const parts = [loadWork(), ...wanted.map(loadList)];
    for (const part of parts) part.then(render, () => {}); // each as soon as it is there
    const failed = (await Promise.allSettled(parts)).find((r) => r.status === "rejected")?.reason ?? null;
    running = false;
    if (failed?.status === 401) return void location.reload(); // to the sign-in
    if (failed !== null && !(failed instanceof Trouble)) console.error(failed);
    connection.trouble = failed;
    if (failed === null) connection.okAt = performance.now();
    showConnection();
    timer = setTimeout(refresh, again ? 0 : EVERY_MS * (0.9 + Math.random() * 0.2));
  }

  function showConnection() {
    const { okAt, trouble } = connection, banner = $("#offline");
    const age = okAt === null ? null : Math.round((performance.now() - okAt) / 1000);
    const slow = trouble === null && !document.hidden && age !== null && age * 1000 > SLOW_MS;
    banner.hidden = trouble === null && !slow;
    if (banner.hidden) return;
    set($("strong", banner), slow ? say("slow")
      : say(trouble.status > 0 ? "trouble" : "not connected"));
    const since = age === null ? say("nothing loaded")
      : age < 100 ? say("updated s", { n: age }) : say("updated min", { n: Math.round(age / 60) });
    set($("span", banner), `${since} ${say("tries again")}`);
  }

  /* -- Showing -- */

  let pointerDownAt = -Infinity, renderWanted = false, shiftedAt = -Infinity;

  function render() {
    renderWanted = performance.now() - pointerDownAt < 3000;
    if (renderWanted) return; // what a finger is on must not move away
    for (const name of Object.keys(lists)) {
      const it = lists[name], pane = panes[name];
      sync(pane, it.cards.map((card) => ({ key: card.order_id, kind: name, card })));
      $(".more", pane).hidden = !it.more;
      sayEmpty(pane, it.known, say(`empty ${name}`));
    }
    const dismissed = remembered("dismissed");
    const lost = (w) => LOST.includes(w.claim.state);
    const work = mine.work.filter((w) => !lost(w) || !dismissed.includes(w.claim.claim_id));
    const rank = (w) => (lost(w) ? 0 : 1);
    work.sort((a, b) => rank(a) - rank(b)); // stable: else newest first, as they came
    sync(panes.work, work.map(({ claim, card }) => (
      { key: claim.claim_id, kind: LOST.includes(claim.state) ? "voided" : "work", card, claim }
    )));
    sayEmpty(panes.work, mine.known, say(role === "operator" ? "empty work" : "empty inHand"));
    const count = (...names) => {
      const them = names.map((name) => lists[name]);
      if (!them.every((it) => it.known)) return "";
      return `${them.reduce((sum, it) => sum + it.cards.length, 0)}${them.some((it) => it.more) ? "+" : ""}`;
    };
    set($("[data-tab=queue] .count"), count("queue"));
    set($("[data-tab=work] .count"), mine.known ? `${work.length}` : "");
    $("[data-tab=work] .count").classList.toggle("alarm", work.some(lost));
    set($("[data-tab=packing] .count"), count("packing", "shipping"));
    set($(".count", panes.packing), count("packing"));
    set($(".count", panes.shipping), count("shipping"));
    $("#source").hidden = !views[view].some((name) => lists[name].source === "database");
  }

  function sayEmpty(pane, known, words) {
    const cards = $$(".card", pane), sought = typed(find.value);
    const none = cards.every((li) => li.hidden), text = $(".empty", pane);
    text.hidden = !none;
    set(text, !known ? say("loading") : cards.length === 0 ? words
      : say("none has", { n: cards.length, sought }));
  }

  /** Make a pane's cards those of `items`, in their order; elements that stay are kept. */
  function sync(pane, items) {
    const ul = $(".cards", pane), scroller = pane.scrollHeight > pane.clientHeight + 1 ? pane : pane.parentElement;
    const old = new Map([...ul.children].map((li) => [li.item.key, li]));
    const same = items.length === old.size
      && items.every(({ key, kind }, i) => ul.children[i].item.key === key && ul.children[i].item.kind === kind);
    const frame = scroller.getBoundingClientRect();
    const seen = same ? [] : [...old.values()].map((li) => [li, li.getBoundingClientRect()])
      .filter(([, box]) => box.height && box.bottom > frame.top && box.top < frame.bottom);
    const focused = document.activeElement, focusedCard = focused?.closest(".card");
    const focusedAt = [...ul.children].indexOf(focusedCard);
    const keep = items.map((item) => {
      const li = old.get(item.key)?.item.kind === item.kind ? old.get(item.key) : build(item);
      if (old.get(item.key) === li) old.delete(item.key);
      fill(li, item);
      return li;
    });
    for (const li of old.values()) {
      const { code, order_id } = li.item.card;
      const ours = busy.has(order_id) || mine.gone.has(li.item.key) || lists[li.item.kind]?.gone.has(order_id);
      if (li.dataset.open && !ours && !keep.some((k) => k.item.key === li.item.key)) {
        toast(say("left", { code }), "bad");
      }
      li.remove();
    }
    keep.forEach((li, i) => {
      if (ul.children[i] !== li) ul.insertBefore(li, ul.children[i] ?? null);
    });
    if (same) return;
    const anchor = seen.find(([li]) => li.isConnected);
    if (anchor && scroller.scrollTop > 8) scroller.scrollTop += anchor[0].getBoundingClientRect().top - anchor[1].top;
    const moved = ([li, box]) => li.isConnected && Math.abs(li.getBoundingClientRect().top - box.top) > 10;
    if (seen.some(moved)) shiftedAt = performance.now();
    if (focusedAt >= 0 && document.activeElement !== focused) {
      if (focused.isConnected) focused.focus({ preventScroll: true });
      else ul.children[Math.min(focusedAt, ul.children.length - 1)]?.focus({ preventScroll: true });
    }
  }

  function build({ kind }) {
    const li = $("#card").content.firstElementChild.cloneNode(true);
    $(".own", li).append($(`#own-${kind}`).content.cloneNode(true));
    const panels = $(`#panels-${kind}`);
    if (panels) $(".panels", li).append(panels.content.cloneNode(true));
    return li;
  }

  function fill(li, item) {
    const { kind, card, claim } = item, mayAct = kind !== "voided";
    const asked = mayAct ? busy.get(card.order_id) : undefined, note = (mayAct && notes.get(card.order_id)) || "";
    const held = li !== document.activeElement && li.contains(document.activeElement);
    li.item = item;
    li.dataset.metal = card.alloy.split("-")[0];
    li.classList.toggle("voided", kind === "voided");
    li.setAttribute("aria-busy", String(asked !== undefined));
    set($(".code", li), card.code);
    const [urgency, words, on] = due(card);
    set($(".due b", li), words);
    set($(".due span", li), on);
    $(".due", li).className = `due ${urgency}`;
    const facts = {
      alloy: named("alloy", card.alloy), finish: named("finish", card.finish), quantity: `${card.quantity}`,
      ring: card.ring_size === null ? null : `${card.ring_size}`,
      scale: card.scale === null ? null : `× ${card.scale}`,
      engraving: card.engraving, box: card.box_mm?.map((mm) => mm.toFixed(1)).join(" × ") ?? null,
      volume: size(card.volume_mm3), model: card.model_name,
    };
    for (const fact of $$(".fact", li)) {
      const value = facts[fact.dataset.fact];
      fact.hidden = value === null || value === "";
      set($("dd", fact), value ?? "");
    }
    $("[data-fact=quantity]", li).classList.toggle("strong", card.quantity > 1);
    $(".model", li).setAttribute("href", `/v1/orders/${encodeURIComponent(card.order_id)}/model`);
    const confirmed = kind !== "work" || (claim.state === "confirmed" && card.status === "MANUFACTURING_STARTED");
    const unconfirmed = claim?.state === "pending" || ["MANUFACTURING_APPROVED", "REWORK"].includes(card.status);
    const state = asked ?? (kind === "voided" ? say("not yours", { why: lostWhy(claim) })
      : confirmed ? (claim && role !== "operator" ? say("in hands", { who: claim.operator }) : "") : unconfirmed ? say("confirming") : say("is now", { status: statusWords(card.status) }));
    set($(".state", li), state);
    $(".state", li).hidden = !state;
    set($(".note", li), note);
    $(".note", li).hidden = !note;
    for (const button of $$(".own button", li)) button.disabled = asked !== undefined || !confirmed;
    for (const panel of $$(".panel", li)) {
      panel.hidden = panel.dataset.panel !== li.dataset.open || asked !== undefined || !confirmed;
    }
    li.hidden = !typed(card.code).includes(typed(find.value));
    // A browser lets go of what is disabled or hidden; whoever works by keyboard stays at this card.
    const now = document.activeElement;
    if (held && (now === document.body || now.closest(":disabled, [hidden]"))) li.focus({ preventScroll: true });
  }

  /* -- Doing -- */

  function begin(card, words) {
    busy.set(card.order_id, words);
    notes.delete(card.order_id);
    render();
    return (trouble) => {
      const known = { 0: say("asking again"), 202: say("waiting") };
      busy.set(card.order_id, known[trouble.status] ?? say("trouble, again"));
      render();
    };
  }

  function end(card, note) {
    busy.delete(card.order_id);
    if (note) {
      notes.set(card.order_id, note);
      toast(`${card.code}: ${note}`, "bad");
    }
    render();
    refresh();
  }

  async function take(card) {
    const waiting = begin(card, say("taking"));
    try {
      const claim = await insist("POST", `/v1/orders/${card.order_id}/claim`, undefined, waiting);
      const entry = { claim, card };
      mine.fresh.set(claim.claim_id, { at: performance.now(), work: entry });
      mine.work = [entry, ...mine.work.filter((w) => w.claim.claim_id !== claim.claim_id)];
      leave("queue", card.order_id);
      toast(say("yours", { code: card.code }), "good");
      end(card);
    } catch (trouble) {
      if (trouble.code === "already-yours") {
        leave("queue", card.order_id);
        toast(say("yours already", { code: card.code }), "good");
        end(card);
      } else if (trouble.code === "already-taken") {
        leave("queue", card.order_id);
        toast(say("taken", { code: card.code, who: trouble.problem.taken_by }), "bad");
        end(card);
      } else if (trouble.code === "not-in-the-queue" || trouble.status === 404) {
        leave("queue", card.order_id);
        toast(say("cannot take", { code: card.code, why: trouble.message }), "bad");
        end(card);
      } else {
        end(card, trouble.message);
      }
    }
  }

  /** Ask Orders for a step of an order on a list (or of a claim, under My work), and see what becomes of it. */
  async function step(action, item, words, body) {
    const { card, kind, claim } = item;
    const done = () => {
      if (kind === "work") {
        mine.gone.set(claim.claim_id, { at: performance.now() });
        mine.work = mine.work.filter((w) => w.claim.claim_id !== claim.claim_id);
      } else {
        leave(kind, card.order_id, card.version);
      }
      if (action === "ship") remember("carriers", body.carrier, 4);
      toast(say(`done ${action}`, { code: card.code }), "good");
      end(card);
    };
    const waiting = begin(card, words);
    try {
      let asked = await insist("POST", `/v1/orders/${card.order_id}/${action}`, body, waiting);
      for (let wait = 200; asked.state === "pending"; wait = Math.min(wait * 1.6, EVERY_MS)) {
        await pause(wait);
        if (wait === EVERY_MS) waiting({ status: 202 });
        try {
          asked = await ask("GET", `/v1/steps/${asked.step_id}`);
        } catch (trouble) {
          if (!trouble.mayPass) throw trouble;
        }
      }
      if (asked.state === "refused") end(card, say("refused", { why: asked.detail ?? asked.code }));
      else done();
    } catch (trouble) {
      // It went through, only the answer was lost.
      if (trouble.again && trouble.problem.status_now === DONE_STATUS[action]) done();
      else end(card, trouble.message);
    }
  }

  async function fetchModel(card, address) {
    try {
      await ask("GET", address); // leads elsewhere, or says why not, without leaving the page
      location.assign(address);
    } catch (trouble) {
      toast(`${card.code}: ${trouble.message}`, "bad");
    }
  }

  function open(li, name) {
    li.dataset.open = name;
    fill(li, li.item);
    const panel = $(`[data-panel=${name}]`, li);
    if (name === "made") {
      const { quantity } = li.item.card;
      set($(".ask", panel), quantity > 1 ? say("all made", { n: quantity }) : say("made"));
    }
    if (name === "ship") {
      const carriers = remembered("carriers").filter((c) => typeof c === "string");
      panel.elements.carrier.value ||= carriers[0] ?? "";
      $(".choices", panel).replaceChildren(...carriers.map((carrier) => {
        const button = document.createElement("button");
        Object.assign(button, { type: "button", textContent: carrier });
        button.dataset.fill = "carrier";
        return button;
      }));
    }
    const first = $$("input", panel).find((input) => !input.value) ?? $(".main", panel);
    first.focus();
    panel.scrollIntoView({ block: "nearest" });
  }

  function close(li) {
    const name = li.dataset.open;
    delete li.dataset.open;
    fill(li, li.item);
    $(`[data-open=${name}]`, li)?.focus();
  }

  const deeds = {
    take: (li) => take(li.item.card),
    pack: (li) => step("pack", li.item, say("packing")),
    dismiss: (li) => {
      remember("dismissed", li.item.claim.claim_id, 50);
      render();
    },
  };

  $("main").addEventListener("click", (event) => {
    const at = event.target.closest("button, a"), li = at?.closest(".card");
    if (!at) return;
    if (at.matches(".more")) {
      const name = at.closest(".pane").dataset.pane;
      lists[name].wanted = lists[name].cards.length + PAGE;
      refresh();
    } else if (at.matches(".model")) {
      event.preventDefault();
      fetchModel(li.item.card, at.getAttribute("href"));
    } else if (at.dataset.do) {
      // A second tap, or one that was under way when the list moved, would hit another order than was meant.
      if (event.detail > 0 && performance.now() - shiftedAt < 500) return;
      deeds[at.dataset.do](li);
    } else if (at.dataset.open) {
      if (event.detail > 0 && performance.now() - shiftedAt < 500) return;
      open(li, at.dataset.open);
    } else if ("close" in at.dataset) {
      close(li);
    } else if (at.dataset.fill) {
      at.form.elements[at.dataset.fill].value = at.textContent;
      $$("input", at.form).find((input) => !input.value)?.focus();
    }
  });

  $("main").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target, li = form.closest(".card"), { item } = li;
    const inputs = $$("input", form);
    for (const input of inputs) input.value = input.value.trim();
    if (!form.reportValidity()) return;
    const body = inputs.length ? Object.fromEntries(inputs.map((input) => [input.name, input.value])) : undefined;
    if (form.dataset.panel === "made") {
      delete li.dataset.open;
      step("complete", item, say("completing"));
    } else if (form.dataset.panel === "release") step("release", item, say("releasing"), body);
    else if (form.dataset.panel === "rework") {
      delete li.dataset.open;
      step("rework", item, say("reworking"), body);
    }
    else step("ship", item, say("shipping"), body);
  });

  $("#sign-out").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("POST", "/sign-out");
      location.reload();
    } catch (trouble) {
      toast(say("still in", { why: trouble.message }), "bad");
    }
  });

  function search() {
    findClear.hidden = !find.value;
    render();
  }
  find.addEventListener("input", search);
  findClear.addEventListener("click", () => {
    find.value = "";
    search();
    find.focus();
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Escape") findClear.click();
    if (event.key === "Enter") $$(`[data-view=${view}] .card`).find((li) => !li.hidden)?.focus();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const card = event.target.closest(".card");
    if (event.key === "Escape" && card?.dataset.open) close(card);
    if (event.target.matches("input")) return;
    const tab = { 1: "queue", 2: "work", 3: "packing" }[event.key];
    if (tab) location.hash = tab;
    if (event.key === "/") {
      event.preventDefault();
      find.focus();
    }
    const by = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (by && card) {
      let next = card[by];
      while (next?.hidden) next = next[by];
      if (next) event.preventDefault();
      next?.focus();
    }
  });

  addEventListener("pointerdown", () => { pointerDownAt = performance.now(); }, true);
  for (const name of ["pointerup", "pointercancel"]) {
    addEventListener(name, () => {
      pointerDownAt = -Infinity;
      setTimeout(() => renderWanted && render(), 80); // after the click
    }, true);
  }

  const scrolled = {};

  function showView() {
    for (const [name, pane] of Object.entries(panes)) if (pane.offsetParent) scrolled[name] = pane.scrollTop;
    const wanted = location.hash.slice(1);
    view = wanted in views ? wanted : "queue";
    for (const section of $$("[data-view]")) section.hidden = section.dataset.view !== view;
    for (const tab of $$("[data-tab]")) {
      if (tab.dataset.tab === view) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    for (const [name, pane] of Object.entries(panes)) if (pane.offsetParent) pane.scrollTop = scrolled[name] ?? 0;
    render();
    refresh();
  }

  addEventListener("hashchange", showView);
  addEventListener("online", refresh);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  document.addEventListener("visibilitychange", refresh);
  setInterval(showConnection, 1000);
  showView();
}

workPage();
