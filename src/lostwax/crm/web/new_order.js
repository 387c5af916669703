// Taking an order for a customer. Data reaches the document by textContent only.
const { $, words, say, element, tell, trouble, api, surely, attempt, state, hooks, ready, forget, prices, options } = await import(document.body.dataset.pieceScript);
const whom = { id: words.customer || null };
const form = $("#order-form");

// -- for whom -------------------------------------------------------------------------------------------------------

const listed = (text, work) => {
  const item = element("li"), button = element("button", text, { type: "button" });
  button.onclick = attempt(work);
  item.append(button);
  return item;
};

async function choose(id, name) {
  whom.id = id;
  $("#known-name").textContent = name;
  $("#known").hidden = false;
  $("#unknown").hidden = true;
  const { orders } = await api("GET", `/v1/orders?customer=${id}&limit=10`);
  $("#earlier").replaceChildren(...orders.map((order) => listed(`${order.code} · ${order.model_name}`, () => again(order.order_id, order.code))));
}

$("#other").onclick = () => {
  whom.id = null;
  $("#known").hidden = true;
  $("#unknown").hidden = false;
  $("#find").q.focus();
};

let asked = 0;
async function find() {
  const turn = ++asked, text = $("#find").q.value.trim();
  if (text.length < 2) return;
  const { customers } = await api("GET", `/v1/customers?q=${encodeURIComponent(text)}&limit=10`);
  if (turn !== asked) return;
  $("#found-words").textContent = customers.length ? "" : words.none;
  $("#found").replaceChildren(...customers.map((customer) => listed([customer.name, customer.phone, customer.email].filter(Boolean).join(" · "), () => choose(customer.customer_id, customer.name))));
}
$("#find").onsubmit = attempt(find);
let later = 0;
$("#find").q.oninput = () => { clearTimeout(later); later = setTimeout(() => find().catch((error) => trouble(error.message)), 250); };
$("#new-customer").onsubmit = (event) => event.preventDefault();

function customer() {
  if (whom.id) return { customer_id: whom.id };
  const entered = $("#new-customer");
  if (!$("#somebody-new").open || !entered.reportValidity()) {
    $("#find").q.focus();
    throw new Error(words.whom);
  }
  const { name, kind, phone, email } = Object.fromEntries(new FormData(entered));
  return { customer: { name, kind, phone, email } };
}

// -- the model ------------------------------------------------------------------------------------------------------

async function again(id, code) {
  forget();
  const model = await api("POST", `/v1/orders/${id}/model/take`);
  tell(say("taken", { code }));
  await ready(model.sha256, null);
}
$("#again").onsubmit = attempt(async ({ target }) => {
  const { orders } = await api("GET", `/v1/search?q=${encodeURIComponent(target.code.value.trim())}`);
  if (!orders.length) throw new Error(words.noOrder);
  await again(orders[0].order_id, orders[0].code);
});

const unchosen = () => { state.option = null; $("#chosen").textContent = words.unchosen; };
Object.assign(hooks, {
  forgotten: () => { $("#order").hidden = true; tell(""); unchosen(); },
  ready: () => { $("#order").hidden = false; },
  unchosen,
  chosen: (text) => {
    $("#chosen").textContent = text;
    form.alloy.value = state.option.alloy;
    form.finish.value = state.option.finish;
  },
});
// A price is for what it was asked for.
for (const field of [form.alloy, form.finish]) field.onchange = () => { unchosen(); for (const cell of document.querySelectorAll("td button")) cell.setAttribute("aria-pressed", "false"); };

// -- the order ------------------------------------------------------------------------------------------------------

form.onsubmit = attempt(async () => {
  const { alloy, finish, deadline, reference, remarks } = Object.fromEntries(new FormData(form)), chosen = state.option;
  const made = chosen ? { quantity: chosen.quantity, ring_size: chosen.ring_size, engraving: chosen.engraving } : options();
  const body = { ...customer(), model: state.model, alloy, finish, ...made, remarks, deadline: deadline || null, reference: reference || null };
  if (chosen) body.quote = { quote_id: chosen.quoteId, option: chosen.option, amount: chosen.amount };
  const { order_id, code } = await surely("POST", "/v1/orders", body);
  tell(say("ordered", { code }));
  location.href = `/orders/${order_id}`;
});

if (whom.id) await choose(whom.id, words.name).catch((error) => trouble(error.message));
if (words.order) await attempt(() => again(words.order, ""))();
