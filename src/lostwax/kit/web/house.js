"use strict";
// What scripts say: the English is the key, and a page gives the words of its language where that is another.
const TOLD = JSON.parse(document.body.dataset.words || "{}"), LOCALE = document.documentElement.lang === "ru" ? "ru" : "en-GB";
const inWords = (english, values = {}) => Object.entries(values)
  .reduce((text, [name, value]) => text.replaceAll(`{${name}}`, () => value), TOLD[english] ?? english);

// While an answer is waited for the page says so, by a bar once that takes half a second.
let waits = 0;
async function waiting(answer) {
  const main = document.querySelector("main");
  waits += 1;
  main.setAttribute("aria-busy", "true");
  try {
    return await answer;
  } finally {
    waits -= 1;
    if (!waits) main.removeAttribute("aria-busy");
  }
}

// What every page of the house does: sign-in by a badge, looking again while there is trouble, and keys. Data reaches
// the document by textContent only.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const TIMEOUT_MS = 15_000, AGAIN_MS = 2000;

  async function signIn() {
    const form = $("#sign-in"), badge = $("#badge"), message = $("#message"), button = $("button", form);
    const words = button.textContent;
    $("#reveal").addEventListener("change", (event) => {
      badge.type = event.target.checked ? "text" : "password";
      badge.focus();
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      message.hidden = true;
      button.disabled = true;
      button.textContent = button.dataset.busy;
      let trouble = "";
      try {
        const answer = await fetch("/sign-in", {
          method: "POST", body: new URLSearchParams(new FormData(form)), cache: "no-store",
          headers: { Accept: "application/json" }, signal: AbortSignal.timeout(TIMEOUT_MS),
        });
        if (answer.ok) return location.reload();
        const problem = await answer.json().catch(() => ({}));
        trouble = problem.detail || problem.title || `${answer.status}`;
      } catch {
        trouble = "The service does not answer. Try again.";
      }
      message.textContent = trouble;
      message.hidden = false;
      button.disabled = false;
      button.textContent = words;
      badge.select();
    });
    // Who follows a link from elsewhere comes without the cookie, and is signed in all the same.
    const page = await fetch(location.pathname, { cache: "no-store" }).catch(() => null);
    if (page?.ok && !(await page.text()).includes('id="sign-in"')) location.reload();
  }

  // The page cannot be shown now. A plain refresh would end at the browser's own error page if the service went, too.
  async function trouble() {
    for (;;) {
      await new Promise((wake) => setTimeout(wake, AGAIN_MS));
      const page = await fetch(location.href, { cache: "no-store" }).catch(() => null);
      if (page && page.status < 500) return location.reload();
    }
  }

  // `/` goes to the search, as people know it from elsewhere; Escape leaves a field.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing) typing.blur();
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = $("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });

  // Times are written by the server in UTC; whoever looks sees their own.
  function ownTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([data-own])")) {
      const at = new Date(time.dateTime);
      time.dataset.own = "";
      if (Number.isNaN(+at)) continue;
      time.title = time.textContent;
      time.textContent = at.toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
    }
  }

  // A form that asks before it does what cannot be taken back.
  document.addEventListener("submit", (event) => {
    const asks = event.target.dataset?.confirm;
    if (asks && !confirm(asks)) event.preventDefault();
  });

  const start = { "sign-in": signIn, trouble }[document.body.dataset.page];
  if (start) start();
  ownTimes(document);
  document.addEventListener("htmx:load", (event) => ownTimes(event.target));
})();
