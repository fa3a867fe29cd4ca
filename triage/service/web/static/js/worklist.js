// The worklist keeps itself up to date: rows come, move and go one by one, and the reader's place
// stays where it is.

import { announce, ask, ended, keys, localise, say, showKeys } from "./app.js";
import { live } from "./live.js";

const list = () => document.getElementById("list");
const body = () => document.getElementById("rows");
const rows = () => [...body().querySelectorAll("tr.study")];

// ---- rows

const waiting = new Set();
let timer = 0;
let busy = false;

function refresh(ids) {
  for (const id of ids) waiting.add(id);
  clearTimeout(timer);
  timer = setTimeout(load, 60); // a study that changes twice at once is asked for once
}

function address(ids) {
  const query = new URLSearchParams(list().dataset.query.split("?")[1] ?? "");
  if (ids) query.set("ids", ids.join(","));
  return `/worklist/rows?${query}`;
}

async function load() {
  if (busy || !waiting.size) return;
  busy = true;
  const ids = [...waiting].slice(0, 100);
  for (const id of ids) waiting.delete(id);
  try {
    const page = await fragment(address(ids));
    keepingPlace(() => {
      const found = new Map([...page.querySelectorAll("tr.study")].map((row) => [row.dataset.id, row]));
      for (const id of ids) put(id, found.get(id));
    });
    counts(page);
  } catch (error) {
    for (const id of ids) waiting.add(id);
    timer = setTimeout(load, 2000);
  } finally {
    busy = false;
    if (waiting.size) refresh([]);
  }
}

async function fragment(from) {
  const answer = await ask(from);
  if (answer.redirected) ended();
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function put(id, fresh) {
  const old = document.getElementById(`s-${id}`);
  if (!fresh) return old?.remove();
  const focused = old?.contains(document.activeElement) ? place(old) : null;
  const row = document.importNode(fresh, true);
  localise(row);
  const after = rows().find((other) => other.dataset.id !== id && other.dataset.key > row.dataset.key);
  const more = document.getElementById("more");
  const onLaterPage = !after && more && !old;
  if (onLaterPage) return;
  if (old && old.dataset.key === row.dataset.key) old.replaceWith(row);
  else {
    old?.remove();
    body().insertBefore(row, after ?? more);
  }
  window.htmx.process(row);
  if (focused) restore(row, focused);
  if (!old) row.classList.add("fresh");
}

// Which part of the row held the focus: the row itself, its link or its button.
function place(row) {
  const at = document.activeElement;
  return at === row ? "row" : at.classList.contains("open") ? ".open" : ".ack";
}

function restore(row, where) {
  const target = where === "row" ? row : row.querySelector(where);
  (target ?? row).focus({ preventScroll: true });
}

// What stands at the top of the window stays there, whatever comes above it.
function keepingPlace(change) {
  const scrolled = window.scrollY > 40;
  const anchor = scrolled ? rows().find((row) => row.getBoundingClientRect().bottom > 60) : null;
  const before = anchor?.getBoundingClientRect().top;
  const id = anchor?.dataset.id;
  const above = anchor ? rows().indexOf(anchor) : 0;
  change();
  const same = id && document.getElementById(`s-${id}`);
  if (same) {
    window.scrollBy({ top: same.getBoundingClientRect().top - before, behavior: "instant" });
    const came = rows().indexOf(same) - above;
    if (came > 0) newAbove(came);
  }
  document.getElementById("empty").hidden = rows().length > 0;
}

let unseenAbove = 0;
const above = document.getElementById("new-above");

function newAbove(number) {
  unseenAbove += number;
  above.textContent = `↑ ${say("new_above", { n: unseenAbove })}`;
  above.hidden = false;
}

function atTop() {
  unseenAbove = 0;
  above.hidden = true;
}

above.addEventListener("click", () => {
  window.scrollTo({ top: 0 });
  atTop();
});
addEventListener("scroll", () => window.scrollY < 40 && atTop(), { passive: true });

async function reload() {
  try {
    const page = await fragment(address());
    keepingPlace(() => {
      const fresh = document.importNode(page.getElementById("rows"), true);
      const shown = rows().length;
      for (const row of fresh.querySelectorAll("tr.study")) localise(row);
      if (shown > fresh.querySelectorAll("tr.study").length) {
        // further pages were open: ask for those rows again
        const kept = rows().map((row) => row.dataset.id);
        refresh(kept);
      }
      body().replaceChildren(...fresh.children);
      window.htmx.process(body());
    });
    counts(page);
  } catch { /* the connection says so already */ }
}

function counts(page) {
  const tabs = page.getElementById("tabs");
  if (!tabs) return;
  document.getElementById("tabs").replaceWith(document.importNode(tabs, true));
  title();
}

// ---- what happens

const started = new Date();

function progress(study) {
  const row = document.getElementById(`s-${study.id}`);
  const bar = row?.querySelector("[data-progress] progress");
  const stage = row?.querySelector("[data-stage]");
  const images = row?.querySelector("[data-images]");
  if (row && row.dataset.status !== study.status) return refresh([study.id]);
  if (images && study.status === "received") return refresh([study.id]);
  if (!bar) return row && study.status === "analysing" ? refresh([study.id]) : undefined;
  bar.value = study.fraction;
  if (stage.dataset.stage !== study.stage) refresh([study.id]); // its name in the reader's language
}

function changed(kind, study) {
  if (kind === "progress") return progress(study);
  if (kind === "deleted") {
    keepingPlace(() => document.getElementById(`s-${study.id}`)?.remove());
    return refresh([study.id]);
  }
  refresh([study.id]);
  const fresh = study.flagged_at && new Date(study.flagged_at) >= started;
  if (kind === "flagged" && study.priority === "stat" && fresh) alarm(study);
}

// ---- a new stat: sound and title, once the reader allowed it

const button = document.getElementById("sound");
const plain = document.title;
let context = null;
let wanted = localStorage.getItem("triage-sound") === "on";
const news = new Set();

function alarm(study) {
  news.add(study.id);
  title();
  beep();
  setTimeout(() => {
    const row = document.getElementById(`s-${study.id}`);
    const patient = row?.querySelector(".open")?.textContent ?? "";
    const found = row ? [...row.querySelectorAll(".c-target")].filter((c) => c.querySelector(".chip-suspected")).map((c) => c.dataset.label) : [];
    announce(say("new_stat", { patient, findings: found.join(", ") }));
  }, 700);
}

function title() {
  const waitingNow = Number(document.getElementById("waiting")?.dataset.stat ?? 0);
  const number = news.size ? Math.max(news.size, waitingNow) : waitingNow;
  const mark = wanted && number ? say("title_stat", { n: number }) : "";
  document.title = mark ? `${news.size && document.hidden ? "▲ " : ""}${mark} ${plain}` : plain;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) news.clear();
  title();
});

function beep() {
  if (!wanted || context?.state !== "running") return;
  for (const [at, pitch] of [[0, 880], [0.22, 1175], [0.44, 880]]) {
    const tone = context.createOscillator();
    const loud = context.createGain();
    const begin = context.currentTime + at;
    tone.frequency.value = pitch;
    loud.gain.setValueAtTime(0, begin);
    loud.gain.linearRampToValueAtTime(0.25, begin + 0.02);
    loud.gain.exponentialRampToValueAtTime(0.001, begin + 0.2);
    tone.connect(loud).connect(context.destination);
    tone.start(begin);
    tone.stop(begin + 0.2);
  }
}

function soundState() {
  button.setAttribute("aria-pressed", String(wanted));
  const ready = context?.state === "running";
  button.textContent = say(!wanted ? "sound_off" : ready ? "sound_on" : "sound_wait");
  title();
}

// Browsers play nothing before the reader did something on the page.
async function wake() {
  if (!wanted) return;
  context ??= new AudioContext();
  await context.resume();
  soundState();
}

button.addEventListener("click", async () => {
  if (wanted && context?.state !== "running") return wake();
  wanted = !wanted;
  localStorage.setItem("triage-sound", wanted ? "on" : "off");
  await wake();
  soundState();
  beep();
});
document.addEventListener("pointerdown", (event) => event.target !== button && wake(), { once: true });
soundState();

// ---- acknowledging, filters, keys

document.body.addEventListener("htmx:afterRequest", (event) => {
  const { successful, elt } = event.detail;
  if (successful && elt.classList.contains("ack")) {
    const id = elt.closest("tr").dataset.id;
    news.delete(id);
    refresh([id]);
  }
});

// The address follows the filter, so that it can be kept; what was searched for stays out of it.
document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "list") return;
  const query = new URLSearchParams(list().dataset.query.split("?")[1] ?? "");
  query.delete("search");
  const path = query.size ? `/?${query}` : "/";
  history.replaceState(null, "", path);
  for (const link of document.querySelectorAll("a[data-preference]")) {
    const to = new URL(link.href);
    to.searchParams.set("next", path);
    link.href = to.href;
  }
});

function step(by) {
  const every = rows();
  if (!every.length) return;
  const at = every.indexOf(document.activeElement?.closest?.("tr.study"));
  const next = every[at < 0 ? 0 : Math.min(Math.max(at + by, 0), every.length - 1)];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

const current = () => document.activeElement?.closest?.("tr.study");

keys({
  j: () => step(1),
  k: () => step(-1),
  ArrowDown: () => (current() ? step(1) : false),
  ArrowUp: () => (current() ? step(-1) : false),
  Enter: () => (document.activeElement === current() && current() ? current().querySelector(".open").click() : false),
  a: () => current()?.querySelector(".ack")?.click(),
  "/": () => document.getElementById("search").focus(),
  "?": showKeys,
});

document.addEventListener("dblclick", (event) => event.target.closest("tr.study")?.querySelector(".open").click());

live({ changed, lost: reload });

