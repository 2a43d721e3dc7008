// What the script adds: forms are sent without leaving the page, fields follow the protocol at once, the consent opens in
// a window of its own. Without it every form and link works as it stands.
"use strict";

const WINDOW = "popup,width=620,height=760";
const LOOK_AGAIN_MS = 1000;
// The library takes a redirect for ten minutes.
const GIVE_UP_MS = 15 * 60 * 1000;
let consentWindow = null;
let watches = 0;

document.documentElement.classList.add("js");

function data(form, button) {
  return new URLSearchParams(new FormData(form, button));
}

// The new page's content in place of the old one's; secrets that were typed stay typed.
function show(text, url) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const main = page.querySelector("main");
  if (!main) return location.reload();
  const secrets = new Map();
  for (const field of document.querySelectorAll("[data-secret]")) {
    secrets.set(field.id, [field.value, document.getElementById(field.id + "-shape")?.value]);
  }
  const open = new Set([...document.querySelectorAll("details[id][open]")].map((one) => one.id));
  document.title = page.title;
  document.querySelector("main").replaceWith(document.adoptNode(main));
  for (const [id, [value, shape]] of secrets) {
    const field = document.getElementById(id);
    if (!field || !value) continue;
    field.value = value;
    const choice = document.getElementById(id + "-shape");
    if (choice && shape) choice.value = shape;
  }
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  const there = new URL(url, location.href);
  if (there.href !== location.href) history.pushState(null, "", there);
}

function arrive() {
  const target = document.querySelector("main [autofocus]") || document.getElementById("main");
  target.focus();
  target.scrollIntoView({ block: "nearest" });
  begin();
}

function complain(form, sentence) {
  const box = document.createElement("div");
  box.className = "notice bad";
  box.setAttribute("role", "alert");
  box.tabIndex = -1;
  box.append(sentence);
  form.before(box);
  box.focus();
}

async function send(form, button) {
  const body = data(form, button);
  form.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.action, { method: "POST", body, credentials: "same-origin" });
    show(await answer.text(), answer.url);
    arrive();
    openConsent();
  } catch {
    form.removeAttribute("aria-busy");
    complain(form, "The helpdesk did not answer. What you typed is still here; try again.");
  }
}

// Asks for the form again until what was typed meanwhile is in it, too.
async function refresh(form) {
  while (form.isConnected) {
    const before = data(form).toString();
    const body = new URLSearchParams(before);
    body.append("_refresh", "1");
    let text;
    try {
      const answer = await fetch(form.action, { method: "POST", body, credentials: "same-origin" });
      if (!answer.ok) return;
      text = await answer.text();
    } catch {
      return;
    }
    if (!form.isConnected) return;
    if (data(form).toString() !== before) continue;
    const { id, selectionStart, selectionEnd } = document.activeElement;
    show(text, location.href);
    const field = id && document.getElementById(id);
    if (!field) return;
    field.focus();
    // Somebody may be typing there.
    if (selectionStart !== undefined && selectionStart !== null) field.setSelectionRange(selectionStart, selectionEnd);
    return;
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-swap]")) return;
  event.preventDefault();
  if (form.getAttribute("aria-busy") !== "true") send(form, event.submitter);
});

document.addEventListener("change", (event) => {
  const form = event.target.closest("[data-settings]");
  if (form && event.target.matches("[data-refresh]")) refresh(form);
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) window.close();
  const link = event.target.closest("#consent-link");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    openConsent(true);
  }
});

addEventListener("popstate", () => location.reload());

// Right after a click; otherwise browsers block it, and the page says so.
function openConsent(asked) {
  const box = document.getElementById("consent");
  if (!box || (!asked && !("open" in box.dataset))) return;
  consentWindow = window.open(box.dataset.consent, "oauth-mail-consent", WINDOW);
  tell(consentWindow ? "consent-waiting" : "consent-blocked");
  if (!consentWindow) return;
  // The provider's page has no business with this one.
  consentWindow.opener = null;
  consentWindow.focus();
  watch();
}

const NOTICES = ["consent-waiting", "consent-blocked", "consent-closed", "consent-failure"];

// One of what the page can say about the window.
function tell(wanted) {
  for (const id of NOTICES) {
    const notice = document.getElementById(id);
    if (notice) notice.hidden = id !== wanted;
  }
}

function isTold(id) {
  return document.getElementById(id)?.hidden === false;
}

// How the consent ends, in whatever window: this page's own, one from before it was loaded again, one opened by hand.
async function watch() {
  const own = ++watches;
  const giveUp = Date.now() + GIVE_UP_MS;
  let closed = 0;
  while (Date.now() < giveUp) {
    await new Promise((done) => setTimeout(done, LOOK_AGAIN_MS));
    const box = document.getElementById("consent");
    if (!box || own !== watches) return;
    try {
      const answer = await fetch(box.dataset.state, { credentials: "same-origin" });
      if (answer.redirected) return location.reload();
      const { state, entry } = await answer.json();
      // An end that the page has shown already is not the end of this window.
      if (state !== "waiting" && String(entry) !== box.dataset.entry) {
        const page = await fetch(location.href, { credentials: "same-origin" });
        if (!page.ok) continue;
        const text = await page.text();
        if (!box.isConnected || own !== watches) return;
        show(text, location.href);
        return arrive();
      }
      if (own !== watches) return;
      // After a failure the person may go on in the same window.
      if (state === "waiting" && isTold("consent-failure")) tell("consent-waiting");
    } catch {
      continue;
    }
    // Some providers cut the tie to their window, which then looks closed: so the page goes on looking.
    closed = consentWindow?.closed ? closed + 1 : 0;
    if (closed === 2 && isTold("consent-waiting")) {
      tell("consent-closed");
      document.getElementById("consent-link").textContent = "Try again";
    }
  }
}

// A device code: asks whether it was entered.
async function poll(form) {
  while (form.isConnected) {
    await new Promise((done) => setTimeout(done, Number(form.dataset.poll) * 1000));
    if (!form.isConnected || form.getAttribute("aria-busy") === "true") continue;
    try {
      const answer = await fetch(form.action, { method: "POST", body: data(form), credentials: "same-origin" });
      if (!answer.redirected && answer.ok) continue;
      show(await answer.text(), answer.url);
      return arrive();
    } catch {
      continue;
    }
  }
}

// Without the clipboard (no TLS) the link can still be marked and copied by hand.
for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).value);
    document.querySelector("[data-copied]").textContent = "Copied.";
  });
}

function begin() {
  const form = document.querySelector("form[data-poll]");
  if (form) poll(form);
  if (document.getElementById("consent")) watch();
}

// What was chosen before this script was here, or what the browser put back into the form.
function isChanged(field) {
  if (field.tagName !== "SELECT") return field.checked !== field.defaultChecked || field.value !== field.defaultValue;
  return [...field.options].some((option) => option.selected !== option.defaultSelected);
}

const changed = [...document.querySelectorAll("[data-settings] [data-refresh]")].find(isChanged);
if (changed) refresh(changed.form);
for (const button of document.querySelectorAll("[data-close]")) button.hidden = !window.opener && window.name === "";
begin();
