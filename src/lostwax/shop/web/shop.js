// The storefront. Data reaches the document by textContent only; the session is a cookie that this script cannot read.
const { $, words, language, say, element, tell, trouble, money, day, whyNot, pause, api, surely, attempt, state: piece, hooks, forget } = await import(document.body.dataset.pieceScript);
const state = { known: "known" in document.body.dataset, me: null, events: null, link: null, talk: null }, TALK_MS = 10_000;
const when = (at) => new Date(at).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });

// -- who ------------------------------------------------------------------------------------------------------------

async function look() {
  state.me = null;
  if (state.known) {  // who has no cookie is nobody, which need not be asked
    try {
      state.me = await api("GET", "/v1/me");
    } catch (error) {
      if (error.status !== 401) trouble(error.message);
    }
  }
  const me = state.me;
  $("#who").textContent = !me ? words.nobody : me.guest ? words.guest : say("signedIn", me);
  $("#sign-out").hidden = !me;
  $("#enter").hidden = Boolean(me && !me.guest);
  $("#contact").hidden = Boolean(me && me.email);
  for (const input of document.querySelectorAll("#contact input")) input.required = !(me && me.email);
  $("#sessions").hidden = !me;
  $("#unconfirmed").hidden = !me || me.guest || me.confirmed;
}

async function enter() {
  if (state.me) return;
  await api("POST", "/v1/guests", { cookie: true });
  state.known = true;
  await look();
}

async function showSessions() {
  if (!state.me) return;
  const { sessions } = await api("GET", "/v1/sessions");
  $("#session-list").replaceChildren(...sessions.map((session) => {
    const item = element("li");
    item.append(element("span", `${session.agent || "?"} · ${day(session.created_at)}`));
    if (session.current) item.append(element("strong", words.thisOne));
    else {
      const end = element("button", words.end, { type: "button" });
      end.onclick = attempt(async () => { await api("DELETE", `/v1/sessions/${session.session_id}`); await showSessions(); });
      item.append(end);
    }
    return item;
  }));
}

$("#sign-in-form").onsubmit = attempt(async ({ target }) => {
  await api("POST", "/v1/sign-in", { ...Object.fromEntries(new FormData(target)), cookie: true });
  target.reset();
  location.hash = "#orders";
  location.reload();
});
$("#sign-up-form").onsubmit = attempt(async ({ target }) => {
  await api("POST", "/v1/customers", { ...Object.fromEntries(new FormData(target)), cookie: true });
  state.known = true;
  target.reset();
  await look();
  await showSessions();
});
$("#confirm-again").onclick = attempt(async () => { await api("POST", "/v1/me/confirmation"); tell(words.letterSent); });
$("#sign-out").onclick = attempt(async () => { await api("POST", "/v1/sign-out"); location.reload(); });

// -- a piece --------------------------------------------------------------------------------------------------------

Object.assign(hooks, {
  enter,
  sent: () => { $("#unfinished").hidden = true; },
  forgotten: () => { $("#order").hidden = true; tell(""); },
  unchosen: () => { $("#order").hidden = true; },
  chosen: (text) => { $("#chosen").textContent = text; $("#order").hidden = false; },
});

$("#order-form").onsubmit = attempt(async ({ target }) => {
  const { quoteId, option, amount, alloy, finish, quantity, ring_size, engraving } = piece.option;
  if (!$("#contact").hidden) {
    const { email, name } = Object.fromEntries(new FormData(target));
    await api("PUT", "/v1/me", { email, name });
    await look();
  }
  const body = { model: piece.model, alloy, finish, quantity, ring_size, engraving, quote: { quote_id: quoteId, option, amount } };
  const { order_id } = await surely("POST", "/v1/orders", body);
  forget();
  location.hash = `#orders/${order_id}`;
  tell(words.ordered);
});

// -- orders ---------------------------------------------------------------------------------------------------------

async function orders() {
  if (!state.me) {
    $("#orders-words").textContent = words.none;
    return;
  }
  let page = await api("GET", "/v1/orders?limit=50");
  if (page.source !== "redis") {  // as for a moment after an order; it is worth a word only when it lasts
    await pause(1500);
    page = await api("GET", "/v1/orders?limit=50");
  }
  $("#orders-words").textContent = !page.orders.length ? words.none : page.source === "redis" ? "" : words.fromDatabase;
  $("#order-list").replaceChildren(...page.orders.map((order) => {
    const item = element("li"), button = element("button", "", { type: "button", "data-order": order.order_id });
    button.append(element("span", order.code), element("span", words.status[order.status] || order.status, { class: "status" }), element("span", day(order.accepted_at)));
    button.onclick = () => { location.hash = `#orders/${order.order_id}`; };
    item.append(button);
    return item;
  }));
}

function watch(id) {
  state.events?.close();
  state.events = null;
  clearInterval(state.talk);
  for (const part of ["#one", "#conversation"]) $(part).hidden = true;
  if (!id) return;
  talk(id);
  state.talk = setInterval(() => talk(id), TALK_MS);
  const events = (state.events = new EventSource(`/v1/orders/${encodeURIComponent(id)}/events`));
  events.onmessage = ({ data }) => { trouble(""); detail(JSON.parse(data)); };
  events.onerror = () => trouble(words.away);
}

// -- what is said ----------------------------------------------------------------------------------------------------

async function talk(id) {
  const path = `/v1/orders/${encodeURIComponent(id)}/messages`;
  let said;
  try {
    said = (await api("GET", path)).messages;
  } catch {
    return; // the order's own stream says what is away
  }
  if (location.hash !== `#orders/${id}`) return;
  $("#conversation").hidden = false;
  const list = $("#talk"), mark = `${id} ${said.length}`;
  if (list.dataset.mark === mark) return;
  list.dataset.mark = mark;
  list.replaceChildren(...said.map((one) => {
    const item = element("li", "", { class: one.side }), asked = one.layout_id && one.side === "seller";
    item.append(element("strong", one.side === "seller" ? one.name : words.you), " ", element("time", when(one.sent_at), { datetime: one.sent_at }));
    item.append(element("p", asked ? say("layoutReady", one) : one.text, { class: "text" }));
    if (asked) {
      const look = element("button", words.layoutLook, { type: "button", class: "main" });
      look.onclick = attempt(async () => { location.assign((await api("POST", `/v1/orders/${id}/layouts/${one.layout_id}/link`)).url); });
      item.append(look);
    }
    return item;
  }));
  if (!said.length) list.append(element("li", words.nothingSaid, { class: "soft" }));
}

$("#say").onsubmit = attempt(async ({ target }) => {
  const id = location.hash.split("/")[1];
  await surely("POST", `/v1/orders/${encodeURIComponent(id)}/messages`, Object.fromEntries(new FormData(target)));
  target.reset();
  await talk(id);
});

async function command(order, path, body) {
  let told = await api("POST", `/v1/orders/${order.order_id}/${path}`, body);
  tell(words.asked);
  for (let n = 0; told.state === "pending" && n < 40; n++) {
    await pause(500);
    told = await api("GET", `/v1/commands/${told.command_id}`);
  }
  tell(told.state === "refused" ? say("refused", { why: told.detail || told.code }) : "");
}

const OPEN = ["SUBMITTED", "PRICE_CALCULATED", "PRICE_FAILED", "MANUFACTURING_APPROVED", "ON_HOLD"];

function detail(order) {
  const box = $("#one"), made = order.specification, list = element("dl");
  const fact = (name, value) => value && list.append(element("dt", name), element("dd", value));
  const heads = [...document.querySelectorAll("#prices thead th")];
  const row = $(`[data-alloy="${made.alloy}"]`), cell = row && $(`[data-finish="${made.finish}"]`, row);
  fact(words.fact.alloy, row ? row.cells[0].textContent : made.alloy);
  fact(words.fact.finish, cell ? heads[cell.cellIndex].textContent : made.finish);
  fact(words.fact.quantity, String(made.quantity));
  fact(words.fact.ring, made.ring_size && String(made.ring_size));
  fact(words.fact.engraving, made.engraving);
  fact(words.fact.model, made.model.name);
  fact(words.fact.price, order.quote && money(order.quote.amount, order.quote.currency));
  fact(words.fact.sent, order.shipment && `${order.shipment.carrier} ${order.shipment.tracking_number}`);
  const parts = [element("h2", order.code), element("p", words.status[order.status] || order.status, { class: "status" })];
  if (order.promised_at && !["SHIPPED", "CLOSED", "CANCELLED"].includes(order.status)) parts.push(element("p", say("promised", { date: day(order.promised_at) })));
  if (order.held_because) parts.push(element("p", order.held_because, { class: "message" }));
  if (order.failure) parts.push(element("p", whyNot(order.failure), { class: "message" }));
  parts.push(list);
  const act = (text, work, kind = "") => {
    const button = element("button", text, { type: "button", class: kind });
    button.onclick = attempt(work);
    parts.push(button);
  };
  if (order.status === "PRICE_CALCULATED") act(say("accept", { amount: money(order.quote.amount, order.quote.currency) }), () => command(order, "accept", { quote_id: order.quote.quote_id, amount: order.quote.amount }), "main");
  if (order.status === "PRICE_FAILED") act(words.retry, () => command(order, "resubmit", {}));
  // What was made for this order stays when the next event comes; so does the place of who works by keyboard.
  const link = state.link?.order === order.order_id ? state.link.shown : element("p", "", { class: "soft" });
  state.link = { order: order.order_id, shown: link };
  const focused = box.contains(document.activeElement) ? document.activeElement.textContent : null;
  act(words.link, async () => {
    const { path } = await api("POST", `/v1/orders/${order.order_id}/links`);
    link.replaceChildren(element("span", `${words.linkMade} `), element("a", location.origin + path, { href: path }));
  });
  act(words.unlink, async () => { await api("DELETE", `/v1/orders/${order.order_id}/links`); link.textContent = words.unlinked; });
  if (OPEN.includes(order.status) && order.version) act(words.cancel, async () => { if (confirm(words.cancelSure)) await command(order, "cancel", { reason: "by the customer" }); }, "danger");
  parts.push(link);
  if (order.quote) api("GET", `/v1/orders/${order.order_id}/payment`).then((due) => {
    if (words.due[due.state]) fact(words.fact.payment, words.due[due.state].replace("{amount}", money(due.amount, due.currency)));
    if (due.pay_at) fact(words.fact.payment, due.pay_at);
  }).catch(() => {});
  box.replaceChildren(...parts);
  if (focused !== null) [...box.querySelectorAll("button, a")].find((one) => one.textContent === focused)?.focus();
  const listed = $(`[data-order="${order.order_id}"] .status`);
  if (listed) listed.textContent = words.status[order.status] || order.status;
  box.hidden = false;
}

// -- views ----------------------------------------------------------------------------------------------------------

const go = attempt(async () => {
  const [view, id] = (location.hash.slice(1) || "new").split("/");
  const known = ["new", "orders", "account"].includes(view) ? view : "new";
  for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== known;
  for (const link of document.querySelectorAll("header nav a")) link.toggleAttribute("aria-current", link.hash === `#${known}`);
  if (known !== "orders") tell("");
  watch(known === "orders" ? id : null);
  if (known === "orders") await orders();
  if (known === "account") await showSessions();
});
addEventListener("hashchange", go);
await look();
await go();
if (state.me) {
  const { models } = await api("GET", "/v1/models?state=registered&limit=1").catch(() => ({ models: [] }));
  if (models.length) {
    $("#unfinished").textContent = say("unfinished", { name: models[0].name });
    $("#unfinished").hidden = false;
  }
}
