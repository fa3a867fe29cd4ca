// What every page shares: texts, the session's token, times in the reader's zone, keys, faults.

document.documentElement.classList.add("scripted");

export const texts = JSON.parse(document.body.dataset.words);
export const language = document.documentElement.lang;

export function say(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function csrf() {
  return document.querySelector('meta[name="csrf"]').content;
}

// fetch with the session's token; a fault becomes an Error with the service's own words.
export async function ask(address, options = {}) {
  const headers = { "X-CSRF-Token": csrf(), ...(options.headers ?? {}) };
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch {
    throw new Error(say("unreachable"));
  }
  if (!answer.ok) throw new Error(await fault(answer));
  return answer;
}

let leaving = false;

// The session has ended: the page leads to the login, unless it is on its way there.
export function ended() {
  if (!leaving) location.reload();
}

async function fault(answer) {
  if (answer.status === 401) ended();
  try {
    const { error } = await answer.json();
    return `${error.message} ${error.fix}`;
  } catch {
    return `${answer.status}`;
  }
}

// ---- banner and announcements

const banner = document.getElementById("banner");
let closing = 0;

export function warn(text) {
  clearTimeout(closing);
  banner.className = "banner";
  banner.textContent = text;
  banner.hidden = !text;
}

export function tell(text, ms = 4000) {
  warn(text);
  banner.classList.add("fine");
  closing = setTimeout(() => warn(""), ms);
}

export function announce(text) {
  document.getElementById("announce").textContent = text;
}

// ---- times: the server writes UTC, people read their own zone

const zone = { hourCycle: "h23" };
const formats = {
  today: new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", ...zone }),
  other: new Intl.DateTimeFormat(language, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", ...zone }),
  exact: new Intl.DateTimeFormat(language, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", ...zone }),
};

export function clock(date) {
  return formats.today.format(date);
}

export function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const today = at.toDateString() === new Date().toDateString();
    const format = time.classList.contains("exact") ? "exact" : today ? "today" : "other";
    time.title = at.toString();
    time.textContent = formats[format].format(at);
    time.dataset.local = "";
  }
}

localise(document);

// ---- htmx: the token goes with every request; what failed is said

document.body.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRF-Token"] = csrf();
});
document.body.addEventListener("htmx:afterSwap", (event) => localise(event.detail.target.parentElement ?? document));
document.body.addEventListener("htmx:sendError", () => warn(say("failed", { why: say("unreachable") })));
document.body.addEventListener("htmx:responseError", async (event) => {
  const { xhr } = event.detail;
  if (xhr.status === 401) return ended();
  let why = `${xhr.status}`;
  try {
    const { error } = JSON.parse(xhr.responseText);
    why = `${error.message} ${error.fix}`;
  } catch { /* no JSON: the number must do */ }
  warn(say("failed", { why }));
});

// ---- keys: single letters can be switched off (WCAG 2.1.4)

const dialog = document.getElementById("keys");
const enabled = document.getElementById("keys-on");
let keysOn = localStorage.getItem("triage-keys") !== "off";

export function keys(table) {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox], [type=range]), select, textarea, dialog");
    if (!keysOn || typing || event.ctrlKey || event.altKey || event.metaKey) return;
    const action = table[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action && action(event) !== false) event.preventDefault();
  });
}

export function showKeys() {
  dialog?.showModal();
}

if (dialog) {
  enabled.checked = keysOn;
  enabled.addEventListener("change", () => {
    keysOn = enabled.checked;
    localStorage.setItem("triage-keys", keysOn ? "on" : "off");
  });
  document.getElementById("help")?.addEventListener("click", showKeys);
}

// ---- log out

const leave = document.getElementById("logout");
if (leave) leave.disabled = false; // a click before this script ran would do nothing
leave?.addEventListener("click", async () => {
  leaving = true;
  try {
    await ask("/api/v1/session", { method: "DELETE" });
    location.assign("/login");
  } catch (error) {
    leaving = false;
    warn(say("failed", { why: error.message }));
  }
});
